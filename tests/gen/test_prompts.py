"""Prompts: what a wording means, what it is turned into, what is refused."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen.prompts import NULL, TASKS, VOCABULARY, Prompt
from allpet_physics.errors import InputError
from allpet_physics.simulation.study_settings import REGION_WORDS
from allpet_physics.simulation.tracer_names import TRACERS

PARTS = st.tuples(st.sampled_from([None, *VOCABULARY["tracer"]]), st.sampled_from([None, *VOCABULARY["region"]]),
                  st.sampled_from(TASKS))


def test_the_papers_wording():
    assert Prompt.parse("brain with 18F-FDG") == Prompt("18F-FDG", "head", "generation")


@pytest.mark.parametrize(("text", "tracer", "region", "task"), [
    ("FDG brain", "18F-FDG", "head", "generation"),
    ("brain/FDG", "18F-FDG", "head", "generation"),
    ("F-18 FDG brain", "18F-FDG", "head", "generation"),
    ("18F FDG head", "18F-FDG", "head", "generation"),
    ("[18F]FDG of the abdomen", "18F-FDG", "abdomen", "generation"),
    ("[18F] FDG, liver", "18F-FDG", "abdomen", "generation"),
    ("¹⁸F‑FDG‑PET of the Brain", "18F-FDG", "head", "generation"),
    ("a PET scan of the chest with fluorodeoxyglucose.", "18F-FDG", "chest", "generation"),
    ("abdomen (FDOPA)", "18F-DOPA", "abdomen", "generation"),
    ("chest, 68Ga-PSMA", "68Ga-PSMA", "chest", "generation"),
    ("thorax 68Ga-PSMA-11", "68Ga-PSMA", "chest", "generation"),
    ("[68Ga]Ga-PSMA-11 thorax", "68Ga-PSMA", "chest", "generation"),
    ("Ga-68 PSMA-11; lungs", "68Ga-PSMA", "chest", "generation"),
    ("68Ga-PSMA", "68Ga-PSMA", None, "generation"),
    ("Brain", None, "head", "generation"),
    ("low-dose brain with FDG", "18F-FDG", "head", "low-dose"),
    ("FDG brain, Low \n Dose", "18F-FDG", "head", "low-dose"),
    ("attenuation correction of abdomen with PSMA", "68Ga-PSMA", "abdomen", "attenuation-correction"),
    ("tracer conversion: brain", None, "head", "tracer-conversion"),
    ("anything", None, None, "generation"),
    ("low-dose: anything", None, None, "low-dose"),
])
def test_spellings(text, tracer, region, task):
    assert Prompt.parse(text) == Prompt(tracer, region, task)


def test_every_prompt_is_read_back_from_its_words():
    prompts = [Prompt(*parts) for parts in itertools.product(
        [None, *VOCABULARY["tracer"]], [None, *VOCABULARY["region"]], TASKS)]
    assert [Prompt.parse(str(p)) for p in prompts] == prompts
    assert len({str(p) for p in prompts}) == len({p.tokens() for p in prompts}) == len(prompts) == 4 * 4 * len(TASKS)


@settings(deadline=None, max_examples=60)
@given(PARTS, st.randoms(use_true_random=False), st.sampled_from([" ", ", ", " of the ", "; ", " WITH "]))
def test_neither_order_nor_case_nor_fillers_matter(parts, random, between):
    prompt = Prompt(*parts)
    words = [REGION_WORDS.get(prompt.region), prompt.tracer, prompt.task.replace("-", random.choice("- ")), "anything"]
    words = [random.choice((str.upper, str.lower, str))(w) for w in words if w]
    random.shuffle(words)
    assert Prompt.parse(between.join(words)) == prompt


def test_a_prompt_is_its_own_meaning():
    prompt = Prompt("FDG", "Brain", "Low Dose")
    assert prompt == Prompt("18F-FDG", "head", "low-dose")
    assert Prompt.parse(prompt) is prompt
    assert hash(prompt) == hash(Prompt.parse("low-dose FDG brain"))


@given(PARTS)
@settings(deadline=None, max_examples=60)
def test_tokens_count_from_one_and_name_the_words(parts):
    tokens = Prompt(*parts).tokens()
    for token, part, words in zip(tokens, parts, VOCABULARY.values(), strict=True):
        assert token == NULL if part is None else words[token - 1] == part


def test_the_vocabulary_knows_what_can_be_simulated():
    # The order is that of trained weights: new words go to the end.
    assert VOCABULARY["tracer"][:3] == ("18F-FDG", "18F-DOPA", "68Ga-PSMA")
    assert VOCABULARY["region"][:3] == ("head", "chest", "abdomen")
    assert set(TRACERS) <= set(VOCABULARY["tracer"])
    assert set(REGION_WORDS) <= set(VOCABULARY["region"])
    assert VOCABULARY["task"][0] == "generation"


@pytest.mark.parametrize(("text", "word"), [
    ("knee with FDG", "knee"), ("brain with 11C-PIB", "11c-pib"), ("brain with 68Ga-FDG", "68ga-fdg"),
    ("brain with 18F", "18f"), ("xlow-dose brain", "xlow-dose"), ("low-doses brain", "low-doses"),
])
def test_unknown_words_are_named_with_all_that_is_known(text, word):
    with pytest.raises(InputError) as error:
        Prompt.parse(text)
    for known in (repr(word), *REGION_WORDS.values(), *TRACERS, *TASKS):
        assert known in str(error.value)


@pytest.mark.parametrize("text", ["", "  ", "with the", "low-dose", "pet scan"])
def test_a_prompt_that_says_nothing_is_refused(text):
    with pytest.raises(InputError, match=r"must name a region .*brain.*, a tracer .*18F-FDG"):
        Prompt.parse(text)


@pytest.mark.parametrize(("text", "both"), [
    ("brain and chest with FDG", "head and chest"), ("FDG and DOPA brain", "18F-FDG and 18F-DOPA"),
    ("low-dose delayed frame of the brain", "delayed-frame and low-dose"),
])
def test_two_of_a_kind_are_refused(text, both):
    with pytest.raises(InputError, match=f"must name one .*{both}"):
        Prompt.parse(text)


@pytest.mark.parametrize("text", ["brain and head, FDG with 18F-FDG", "low-dose low dose FDG brain"])
def test_the_same_said_twice_is_said(text):
    assert Prompt.parse(text).region == "head"


@pytest.mark.parametrize("text", [None, 3, ["brain"], b"brain"])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(InputError, match=f"must be words .* was {type(text).__name__}"):
        Prompt.parse(text)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"tracer": "11C-PIB"}, "tracer must be one of 18F-FDG, 18F-DOPA, 68Ga-PSMA"),
    ({"region": "knee"}, "region must be one of head, chest, abdomen, but was 'knee'"),
    ({"region": 2}, "region must be one of .* was 2"),
    ({"task": "paint"}, "task must be one of generation, low-dose"),
    ({"task": None}, "task must be one of"),
])
def test_unknown_parts_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Prompt(**arguments)
