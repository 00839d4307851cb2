"""Search OpenMoji's pictures in many languages, before and after words kept their marks.

    python examples/openmoji_languages.py FOLDER [--languages en hi zh] [--seeds 1] [--work-dir DIR]

FOLDER holds CLDR's names of emoji, a folder for each language with its `annotations.json`: the folder `annotations` of
the package cldr-annotations-full. A picture's captions are its name and its keywords in one language. Printed is the
share of names, in percent, that find

- their keywords among those of all pictures, by the cosine of their words' tf-idf: nothing is learnt, so that it tells
  of words alone;
- their picture among those of the test part, by a ranker of frozen features that has seen neither;

among the first ten, by the words of earlier versions and by those of today.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GroupShuffleSplit

from sklearn_mm.datasets import load_openmoji
from sklearn_mm.exceptions import TokenizationWarning, UnknownWordsWarning
from sklearn_mm.features import FullNetworkEmbedding, TextNGramEncoder
from sklearn_mm.retrieval import JointEmbeddingRanker
from sklearn_mm.texts import build_tokenizer

LANGUAGES = ["en", "hi", "bn", "ta", "th", "km", "zh", "ja", "ko", "ar", "ru", "de", "fr", "es", "pt"]
BEFORE = {"token_pattern": r"(?u)\b\w+\b", "unicode_form": None}
NOW = {"token_pattern": None, "unicode_form": "NFC"}
N_FOUND = 10


def bare(emoji):
    """Leave out what asks for colour: tables differ in where they put it."""
    return emoji.replace("\ufe0f", "")


def read_names(folder, language):
    """Return name and keywords of each emoji."""
    content = json.loads((Path(folder) / language / "annotations.json").read_text(encoding="utf-8"))
    names = {}
    for emoji, entry in content["annotations"]["annotations"].items():
        if "tts" in entry:
            name = entry["tts"][0]
            names[bare(emoji)] = name, [keyword for keyword in entry.get("default", []) if keyword != name]
    return {emoji: own for emoji, own in names.items() if own[1]}


def hit_rate(scores):
    """Return the share of rows whose own column is among the first ten, in percent; ties count by their mean place."""
    own = scores.diagonal()[:, None]
    place = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return 100 * np.mean(place < N_FOUND)


def by_words(names, ngram_range, token_pattern, unicode_form):
    split = build_tokenizer(True, token_pattern, "word", ngram_range, unicode_form)
    vectorizer = TfidfVectorizer(analyzer=split)
    keywords = vectorizer.fit_transform([" ; ".join(keywords) for _, keywords in names])
    return hit_rate((vectorizer.transform([name for name, _ in names]) @ keywords.T).toarray())


def by_ranker(features, names, groups, seed, ngram_range, **words):
    train, test = next(GroupShuffleSplit(1, test_size=0.25, random_state=seed).split(features, groups=groups))
    encoder = TextNGramEncoder(512, word_dim=512, ngram_range=ngram_range, **words)
    ranker = JointEmbeddingRanker(encoder, n_components=512, random_state=seed, precision="float32")
    ranker.fit(features[train], [[names[row][0], *names[row][1]] for row in train])
    texts = ranker.transform_text([names[row][0] for row in test])
    return hit_rate(texts @ ranker.transform(features[test]).T)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--languages", nargs="+", default=LANGUAGES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work-dir", help="keep pictures and features here, for the next run")
    args = parser.parse_args()
    warnings.simplefilter("ignore", TokenizationWarning)
    warnings.simplefilter("ignore", UnknownWordsWarning)

    data = load_openmoji(224, data_home=args.work_dir)
    keys = ["".join(chr(int(code, 16)) for code in file.removesuffix(".svg").split("-")) for file in data.file]
    named = read_names(args.folder, "en")
    rows = [row for row, key in enumerate(keys) if bare(key) in named]
    embedding = FullNetworkEmbedding("efficientnet_lite0", layers="last", discretize=False, cache=args.work_dir)
    features = embedding.fit_transform([data.images[row] for row in rows])
    print("language, pictures; keywords before, now, now with pairs; pictures before, now, now with pairs")
    for language in args.languages:
        named = read_names(args.folder, language)
        kept = [place for place, row in enumerate(rows) if bare(keys[row]) in named]
        names = [named[bare(keys[rows[place]])] for place in kept]
        groups = data.groups[[rows[place] for place in kept]]
        ways = [(BEFORE, (1, 1)), (NOW, (1, 1)), (NOW, (1, 2))]
        found = [by_words(names, pairs, **words) for words, pairs in ways]
        for words, pairs in ways:
            seeds = range(args.seeds)
            found.append(np.mean([by_ranker(features[kept], names, groups, seed, pairs, **words) for seed in seeds]))
        print(f"{language}, {len(names)}: ", "  ".join(f"{share:.1f}" for share in found), flush=True)


if __name__ == "__main__":
    main()
