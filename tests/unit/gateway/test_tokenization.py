"""Token ids: those of the official way for every text, whatever is in it."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.prompts import RERANK_HEAD, RERANK_TAIL, embed_prompt, rerank_prompt
from gateway.tokenization import Truncation, tokenize
from tests.support.official import DEFAULT_INSTRUCTION, RERANK_PREFIX, RERANK_SUFFIX, detailed_instruct

END_OF_TEXT = 151643
FIRST_SPECIAL = 151643
SUFFIX_IDS = [151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271]

TEXTS = [
    "What is the capital of China?",
    "中国的首都是哪里?北京。",
    "日本の首都は東京です。カタカナもある",
    "대한민국의 수도는 서울입니다",
    "ما هي عاصمة مصر؟ القاهرة ١٢٣",
    "מהי בירת ישראל? שָׁלוֹם",
    "भारत की राजधानी नई दिल्ली है।",
    "เมืองหลวงของประเทศไทยคือกรุงเทพ",
    "Какая столица России?",
    "Ποια είναι η πρωτεύουσα;",
    "Thủ đô của Việt Nam là Hà Nội",
    "የኢትዮጵያ ዋና ከተማ አዲስ አበባ",
    "def f(x: int) -> int:\n    return x + 1\t# tab\n",
    "SELECT * FROM t WHERE a <> 'b''c';",
    "family 👨‍👩‍👧‍👦 flag 🇨🇳 skin 👍🏽 keycap 1️⃣",
    "e\u0301 e\u0301\u0323 A\u030a and \ufb01",
    "\u0301starts with a combining mark",
    "\u0338slash that composes with > and =",
    "\u202eright to left\u202c \u200fmark\u200e",
    "  two spaces first",
    "\n\nlines first",
    "\r\nWindows\r\nlines\r\n",
    "\ttab first",
    "trailing spaces   ",
    "trailing lines\n\n\n",
    ": colon first",
    ">: label first",
    "!!!???...",
    "1234567890 3.14159 1,000,000",
    "I'LL don't we've THEY'RE",
    "a\u00a0b\u3000c\u2003d\u2028e\u0085f",
    "\x00\x01\x7f control",
    "\ufffd\uffff\U0010ffff",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒕𝒆𝒙𝒕 ﷽",
    "x" * 300,
    "ㄱㅏ 각 각",
]

SPECIAL_STRINGS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "<|fim_prefix|>",
    "<|vision_start|>",
    "<|image_pad|>",
    "<|repo_name|>",
]

# Letters, marks, spaces and signs that regexes and normalisation join or part; then anything at all.
tricky = st.sampled_from(
    [*"aZé中 \n\r\t:><!'’.,1٣", "\u0301", "\u0338", "\u0323", "\u3099", "\u200d", "\ufe0f", "👍", "  "]
)
any_text = st.lists(tricky | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=24).map("".join)
fuzz = settings(max_examples=300, deadline=None)


def sequences(tokenizer, prompt, policy=Truncation.ERROR, max_tokens=None):
    found = tokenize(tokenizer, prompt, policy, max_tokens)
    return [[*found.prefix, *tail] for tail in found.tails]


@pytest.mark.parametrize("text", TEXTS)
def test_a_document_has_the_official_ids(text, embed_tokenizer, official_embed):
    [ids] = sequences(embed_tokenizer, embed_prompt([text], instruction=None))
    assert ids == official_embed(text)
    assert ids[-1] == END_OF_TEXT
    assert ids.count(END_OF_TEXT) == 1


@pytest.mark.parametrize("text", TEXTS)
def test_a_query_has_the_official_ids(text, embed_tokenizer, official_embed):
    [ids] = sequences(embed_tokenizer, embed_prompt([text], instruction=DEFAULT_INSTRUCTION))
    assert ids == official_embed(detailed_instruct(DEFAULT_INSTRUCTION, text))


@pytest.mark.parametrize("text", TEXTS)
def test_an_instruction_of_any_language_has_the_official_ids(text, embed_tokenizer, official_embed):
    [ids] = sequences(embed_tokenizer, embed_prompt(["a query"], instruction=text))
    assert ids == official_embed(detailed_instruct(text, "a query"))


@pytest.mark.parametrize("text", TEXTS)
def test_a_pair_has_the_official_ids(text, rerank_tokenizer, official_rerank):
    prompt = rerank_prompt(text, [text, "another"], instruction=DEFAULT_INSTRUCTION, field="documents")
    first, second = sequences(rerank_tokenizer, prompt)
    assert first == official_rerank(DEFAULT_INSTRUCTION, text, text)
    assert second == official_rerank(DEFAULT_INSTRUCTION, text, "another")
    assert first[-len(SUFFIX_IDS) :] == SUFFIX_IDS


def test_there_is_no_space_after_the_label_of_a_query(embed_tokenizer, official_embed):
    [ids] = sequences(embed_tokenizer, embed_prompt(["gravity"], instruction="Explain"))
    assert ids == official_embed("Instruct: Explain\nQuery:gravity")
    assert ids != official_embed("Instruct: Explain\nQuery: gravity")


def test_the_template_of_a_pair_is_the_official_one():
    assert (RERANK_HEAD, RERANK_TAIL) == (RERANK_PREFIX, RERANK_SUFFIX)


def test_texts_of_one_call_share_their_prefix(embed_tokenizer):
    found = tokenize(embed_tokenizer, embed_prompt(TEXTS, instruction="Retrieve"), Truncation.ERROR, None)
    assert list(found.prefix) == embed_tokenizer.encode(["Instruct: Retrieve\nQuery"])[0].ids
    assert found.lengths == [len(found.prefix) + len(tail) for tail in found.tails]
    assert found.truncated == (False,) * len(TEXTS)


@fuzz
@given(instruction=any_text, text=any_text)
def test_a_query_cut_at_its_label_has_the_ids_of_the_whole(instruction, text, embed_tokenizer, official_embed):
    [ids] = sequences(embed_tokenizer, embed_prompt([text], instruction=instruction))
    assert ids == official_embed(detailed_instruct(instruction, text))


@fuzz
@given(instruction=any_text, query=any_text, document=any_text)
def test_a_pair_cut_at_its_label_has_the_ids_of_the_whole(
    instruction, query, document, rerank_tokenizer, official_rerank
):
    prompt = rerank_prompt(query, [document], instruction=instruction, field="documents")
    [ids] = sequences(rerank_tokenizer, prompt)
    assert ids == official_rerank(instruction, query, document)


@pytest.mark.parametrize("mark", ["\u0301", "\u0338", "\u20d2", "\u3099", "\u0653", "\u0327", "\u1161", "\u200d"])
def test_a_combining_mark_behind_the_label_has_the_ids_of_the_whole(
    mark, embed_tokenizer, rerank_tokenizer, official_embed, official_rerank
):
    [query] = sequences(embed_tokenizer, embed_prompt([mark + "x"], instruction="i"))
    prompt = rerank_prompt("q" + mark, [mark + "x"], instruction="i" + mark, field="documents")
    [pair] = sequences(rerank_tokenizer, prompt)
    assert query == official_embed(detailed_instruct("i", mark + "x"))
    assert pair == official_rerank("i" + mark, "q" + mark, mark + "x")


@pytest.mark.parametrize("special", SPECIAL_STRINGS)
def test_a_special_token_in_a_users_part_stays_text(special, embed_tokenizer, rerank_tokenizer):
    text = f"a{special}b {special}{special}"
    [document] = sequences(embed_tokenizer, embed_prompt([text], instruction=None))
    [query] = sequences(embed_tokenizer, embed_prompt([text], instruction=text))
    [pair] = sequences(rerank_tokenizer, rerank_prompt(text, [text], instruction=text, field="documents"))
    assert [id_ for id_ in document if id_ >= FIRST_SPECIAL] == [END_OF_TEXT]
    assert [id_ for id_ in query if id_ >= FIRST_SPECIAL] == [END_OF_TEXT]
    of_template = [id_ for id_ in pair if id_ >= FIRST_SPECIAL]
    assert of_template == [151644, 151645, 151644, 151645, 151644, 151667, 151668]


def test_no_added_token_of_the_tokenizer_can_be_written_by_a_user(embed_tokenizer, rerank_tokenizer):
    for tokenizer in (embed_tokenizer, rerank_tokenizer):
        added = [token.content for token in tokenizer._users.get_added_tokens_decoder().values()]
        assert len(added) >= 26
        for encoding in tokenizer.encode([f"x{token}" for token in added] + added):
            assert max(encoding.ids) < FIRST_SPECIAL


@fuzz
@given(parts=st.lists(st.sampled_from(SPECIAL_STRINGS) | tricky, min_size=1, max_size=8))
def test_special_tokens_among_anything_stay_text(parts, embed_tokenizer):
    text = "".join(parts)
    [encoding] = embed_tokenizer.encode([text])
    assert all(id_ < FIRST_SPECIAL for id_ in encoding.ids)
    assert embed_tokenizer._users.decode(encoding.ids) == unicodedata.normalize("NFC", text)


def test_offsets_are_code_points(embed_tokenizer):
    text = "重力 👍🏽 gravity e\u0301nd"
    [encoding] = embed_tokenizer.encode_with_offsets([text])
    words = [text[start:end] for start, end in encoding.offsets]
    assert "".join(words[:2]) == "重力"
    assert " gravity" in words
    assert encoding.offsets[-1][1] == len(text)
