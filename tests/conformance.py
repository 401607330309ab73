"""The rules of every model that continues stories, and of every backbone of StoryDALL-E, whoever wrote it.

A check is a function of a factory, and raises AssertionError where the model breaks a promise. Put your own through
all of them with a few lines of a test file:

    from tests import conformance

    @pytest.mark.parametrize("check", conformance.MODEL_CHECKS)
    def test_my_model_conforms(check):
        check(make_my_model)

``MODEL_CHECKS`` take a factory of a small ``PretrainedModel`` that is ready to draw, with weights far enough from
their start that captions and source are seen in its pictures (``awake`` moves them).
``BACKBONE_CHECKS`` take a factory of a small fresh ``Backbone``, of at least three blocks and five tokens a caption,
and try it alone, in a retrofit, and while it decodes.
A factory draws its weights from torch's global generator, which the checks seed.
"""

from tests.conformance_backbones import BACKBONE_CHECKS, awake
from tests.conformance_models import MODEL_CHECKS

__all__ = ["BACKBONE_CHECKS", "MODEL_CHECKS", "awake"]
