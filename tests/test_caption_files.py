"""Files of captions: read as what they are, or refused with the line and the form that is wanted."""

import json
from pathlib import Path

import pytest

from storydalle.commands import inputs
from storydalle.mistakes import UserError
from storydalle.stories.caption_files import read_caption_file

CAPTIONS = ["Pip waves.", "Lulu, in red, sits."]
READ = {
    "story.txt": "Pip waves.\n\n\u200b\n  Lulu, in red,\u2028sits. \r\n",
    "no_ending": "Pip waves.\rLulu, in red, sits.",
    "chapter1.2": "Pip waves.\nLulu, in red, sits.",
    "list.txt": json.dumps(CAPTIONS, indent=1),
    "objects.txt": '{"caption": "Pip waves."}\n{"text": "Lulu, in red, sits."}',
    "list.json": json.dumps(CAPTIONS),
    "objects.json": json.dumps([{"caption": text, "frame": i} for i, text in enumerate(CAPTIONS)]),
    "strings.jsonl": '"Pip waves."\n\n"Lulu, in red, sits."\n',
    "objects.jsonl": '{"id": 1, "text": "Pip waves."}\n{"id": 2, "text": "Lulu, in red, sits."}',
    "rows.ndjson": '{"text": "no", "caption": "Pip waves."}\n{"text": "no", "caption": "Lulu, in red, sits."}',
    "named.csv": 'frame,Caption\n1,Pip waves.\n2,"Lulu, in red, sits."\n',
    "both.csv": 'text,caption\nno,Pip waves.\nno,"Lulu, in red, sits."\n',
    "one.csv": 'caption\nPip waves.\n\n"Lulu, in red, sits."\n',
    "bare.csv": 'Pip waves.\n"Lulu, in red, sits."\n',
    "excel.csv": "\ufeffframe;text\r\n1;Pip waves.\r\n2;Lulu, in red, sits.\r\n",
    "named.tsv": "frame\ttext\n1\tPip waves.\n2\tLulu, in red, sits.\n",
    "bare.tsv": "Pip waves.\nLulu, in red, sits.\n",
    "list.md": "# Pip's day\n\n- Pip **waves**.\n- Lulu, in red,\n  sits.\n",
    "numbers.md": "Pip's day\n".replace("Pip's day", "## Pip's day") + "1. Pip waves.\n2. *Lulu*, in red, sits.\n",
    "lines.md": "# Pip's day\n\nPip waves.\n\nLulu, in red, sits.\n",
}
REFUSED = {
    "table.csv": ("scene,words\n1,Pip waves.\n", "no column called caption or text, but 'scene', 'words'"),
    "semicolons.csv": ("scene;words\n1;Pip waves.\n", "no column called caption or text, but 'scene', 'words'"),
    "header.csv": ("sentence\nPip waves.\n", "begins with 'sentence': call the column caption"),
    "commas.csv": (
        "caption\nPip waves.\nLulu, in red, sits.\n",
        "line 3: 3 cells for 1 columns: put texts that hold ',' ",
    ),
    "hole.csv": ("frame,caption\n1,Pip waves.\n2,\n", "no caption in line 3"),
    "quotes.csv": ('caption\n"Pip waves.\n', "is no table of captions, line 2: not a csv"),
    "only.csv": ("caption\n", "holds no caption"),
    "text.jsonl": ('"Pip waves."\nLulu sits.\n', "not JSON in line 2"),
    "keys.jsonl": ('{"sentence": "Pip waves."}', 'no caption in line 1: write "..."'),
    "stories.jsonl": ('{"id": "a", "captions": ["Pip waves."]}', "no caption in line 1"),
    "numbers.jsonl": ("1\n2\n", "no caption in line 1"),
    "story.txt": ('{"captions": ["Pip waves."]}', "holds no caption in line 1|not a JSON list"),
    "numbers.txt": ("[1, 2]", "entry 1 is 1"),
    "deep.json": ("[" * 100_000, "not JSON"),
    "mixed.md": ("Intro.\n\n- Pip waves.\n", "has a list, and in line 1 a text beside it"),
    "rule.md": ("Pip waves.\n\n---\n", "a rule in line 3"),
    "title.md": ("Pip's day\n=========\nPip waves.\n", "a rule in line 2"),
    "table.md": ("| a |\n|---|\n", "a table in line 1"),
    "code.md": ("```\nPip waves.\n```\n", "code in line 1"),
    "picture.md": ("![Pip](pip.png)\n", "a picture in line 1"),
    "heads.md": ("# One\n# Two\n", "holds no caption"),
    "story.rtf": (r"{\rtf1 Pip waves.}", r"no list of captions: give \.txt \(a caption a line\), \.csv"),
    "story.HTML": ("<p>Pip waves.</p>", "no list of captions"),
    "story.docx": ("PK", "no list of captions"),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_caption_file_of_every_form_gives_the_same_captions(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(READ[name].encode(encoding))
    assert read_caption_file(tmp_path / name) == CAPTIONS
    assert inputs.read_captions(str(tmp_path / name)) == CAPTIONS


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_list_of_captions_is_refused_by_file_and_line(tmp_path: Path, name: str) -> None:
    content, what = REFUSED[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=what) as refused:
        read_caption_file(tmp_path / name)
    assert f"captions={tmp_path / name}" in str(refused.value)
    with pytest.raises(UserError, match=what):
        inputs.read_captions(str(tmp_path / name))


@pytest.mark.parametrize("line", ["[Pip] waves.", "{Pip waves.", "[1] Pip waves.", "# Pip waves.", "- Pip waves."])
def test_sentences_that_only_look_like_another_form_are_lines(tmp_path: Path, line: str) -> None:
    (tmp_path / "story.txt").write_text(f"{line}\nLulu sits.\n")
    assert read_caption_file(tmp_path / "story.txt") == [line, "Lulu sits."]
