"""Two VQGANs as one tokenizer: one encodes, the other draws. DALL-E Mega's detokenizer came without an encoder."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from storydalle.configured import NetworkSettings
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.vqgan import VQGAN, VQGANSettings


@dataclass(frozen=True)
class PairedSettings(NetworkSettings):
    """Settings of two VQGANs; only one half of each is kept."""

    tokenizer: VQGANSettings
    detokenizer: VQGANSettings


class PairedTokenizer(ImageTokenizer):
    """``encode`` is the encoder and the codebook of the VQGAN ``tokenizer``, ``decode`` is that of ``detokenizer``.

    Mega-StoryDALL-E combines taming's f16-16384 and dalle-mini's detokenizer in this way.

    Only sizes can be checked here, but a code must also mean the same thing in both:

    - The two are different fine-tunings of one model: two codebooks, two networks. How far a code's meaning has moved
      is not known; compare a picture with its reconstruction before training on such codes.
    - Each has its own range of pixels, which its config must state (``pixel_range``): taming's encoders need [-1, 1],
      dalle-mini's detokenizer draws in [0, 1]. The released StoryDALL-E code gave pictures in [0, 1] to taming's
      encoder, so its codes were those of washed-out pictures.
    - GroupNorm: the released code ran both with an epsilon of 1e-5, but taming trains with 1e-6 (``norm_eps``).
      min-dalle also uses 1e-5 for its detokenizer, and so does a converted one here; the epsilon of its training is
      not known.
    """

    kind = "paired"
    settings: PairedSettings

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = PairedSettings.of(*values, **named)
        self.tokenizer = VQGAN(**self.settings.tokenizer.to_config())
        self.detokenizer = VQGAN(**self.settings.detokenizer.to_config())
        for what in ("codebook_size", "num_codes", "resolution"):
            encoded, drawn = getattr(self.tokenizer, what), getattr(self.detokenizer, what)
            if encoded != drawn:
                raise ValueError(f"the tokenizer has {what}={encoded}, the detokenizer {drawn}: they must agree")
        del self.tokenizer.decoder, self.tokenizer.post_quant_conv
        del self.detokenizer.encoder, self.detokenizer.quant_conv
        self.resolution, self.window, self.grid = self.tokenizer.resolution, self.tokenizer.window, self.tokenizer.grid
        self.codebook_size = self.tokenizer.codebook_size

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b l"]:
        return self.tokenizer.encode(images)

    def encode_windows(self, windows: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n l"]:
        return self.tokenizer.encode_windows(windows)

    def decode(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b 3 h w"]:
        return self.detokenizer.decode(codes)

    @property
    def picture_bytes(self) -> int:
        return self.detokenizer.picture_bytes

    def encoding_weights(self) -> dict[str, Tensor]:
        """The weights of the tokenizer; codes that it made before it was paired stay valid."""
        return self.tokenizer.encoding_weights()

    def encoding_settings(self) -> dict[str, object]:
        return self.tokenizer.encoding_settings()
