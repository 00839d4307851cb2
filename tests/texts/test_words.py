"""What a word is in scripts with marks, and in those without spaces."""

import re
import sys
import unicodedata

import pytest

from sklearn_mm.texts import build_tokenizer, looks_unsplit

WORDS = {
    "English": ("A dog's 2 big_paws, naïve!", ["a", "dog", "s", "2", "big_paws", "naïve"]),
    "Hindi": ("लाल सेब और हिन्दी", ["लाल", "सेब", "और", "हिन्दी"]),
    "Tamil": ("சிவப்பு ஆப்பிள்", ["சிவப்பு", "ஆப்பிள்"]),
    "Bengali": ("লাল আপেল।", ["লাল", "আপেল"]),
    "Arabic with vowels": ("كِتَابٌ جديد", ["كِتَابٌ", "جديد"]),
    "Hebrew with points": ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
    "Korean": ("빨간 사과", ["빨간", "사과"]),
    "Chinese": ("红苹果, iPhone 12手机", ["红", "苹", "果", "iphone", "12", "手", "机"]),
    "Japanese": ("赤いリンゴ", ["赤", "い", "リ", "ン", "ゴ"]),
    "Thai": ("แอปเปิ้ล", ["แ", "อ", "ป", "เ", "ปิ้", "ล"]),
    "Khmer": ("ផ្លែ", ["ផ្", "លែ"]),
}


BEFORE = r"(?u)\b\w+\b"


def tokenizer(token_pattern=None, analyzer="word", unicode_form="NFC", **others):
    return build_tokenizer(True, token_pattern, analyzer, unicode_form=unicode_form, **others)


@pytest.mark.parametrize(("text", "words"), WORDS.values(), ids=WORDS)
def test_words_keep_their_marks_and_characters_are_words_where_no_spaces_are(text, words):
    assert tokenizer()(text) == words


def test_no_mark_ends_a_word_and_none_is_one():
    marks = [chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    selectors = {*map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0))}
    words = tokenizer(unicode_form=None)
    assert len(marks) > 2000
    for mark in marks:
        # a selector chooses how the sign in front of it is drawn
        expected = ["ab", "c"] if mark in selectors else [f"ab{mark}c".lower()]
        assert "".join(words(f"ab{mark}c")) == "".join(expected)
        assert words(f"ab{mark}c")[-1] == expected[-1]
        assert words(f" {mark} ") == []


def test_without_marks_words_are_those_of_the_pattern_before():
    text = "".join(chr(code) for code in range(0x20, 0x2FF)) + " a_b 12 naïve Ελλάδα привет — ✓ a-b"
    text = text.replace("İ", "")  # a small one is an i and a mark
    assert tokenizer(unicode_form=None)(text) == re.findall(BEFORE, text.lower())


@pytest.mark.parametrize("how", [{}, {"token_pattern": r"\S+"}, {"analyzer": str.split}])
def test_texts_that_look_alike_have_the_same_words(how):
    composed, decomposed = (unicodedata.normalize(form, "un château é") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert tokenizer(**how)(decomposed) == tokenizer(**how)(composed) == ["un", "château", "é"]
    assert tokenizer(BEFORE, unicode_form=None)(decomposed) != ["un", "château", "é"]
    assert tokenizer(unicode_form="NFKC", **how)("ﬁve") == ["five"]


def test_characters_make_ngrams_as_words_do():
    assert tokenizer(ngram_range=(1, 2))("红苹果") == ["红", "苹", "果", "红 苹", "苹 果"]


@pytest.mark.parametrize(
    ("texts", "unsplit"),
    [
        (["一只狗在草地上奔跑", "两个人在谈话"], "一只狗在草地上奔跑"),
        (["草の上を走る犬", "a dog"], "草の上を走る犬"),
        (["สุนัขวิ่งบนหญ้า"], "สุนัขวิ่งบนหญ้า"),
        (["一只 狗 在 草地 上 奔跑", "两 个 人 谈话"], None),
        (["สุนัข วิ่ง บน หญ้า"], None),
        (["dog 狗", "cat 猫"], None),
        (["풀밭 위를 달리는 개가 있습니다", "a dog", "लाल सेब"], None),
    ],
)
def test_sentences_taken_for_words_are_noticed(texts, unsplit):
    assert looks_unsplit(texts, tokenizer(r"\S+")) == unsplit
    assert looks_unsplit(texts, tokenizer()) is None
