"""Among several texts of a case the one that agrees most with the others is chosen, by what they state."""

import pytest

from wsi_mivpg.trust import alternatives, choose
from wsi_mivpg.trust.consensus import agreement, similarity

ADENO = "Lung, core biopsy: adenocarcinoma, involving approximately 30% of the tissue."
ALSO_ADENO = "Lung (core biopsy): adenocarcinoma, in 35% of the sampled tissue."
SQUAMOUS = "Lung, core biopsy: squamous cell carcinoma, involving approximately 80% of the tissue."


def test_the_same_said_in_other_words_is_alike_and_another_finding_is_not() -> None:
    assert similarity(ADENO, ALSO_ADENO) == 1
    assert similarity(ADENO, SQUAMOUS) == similarity(SQUAMOUS, ADENO) < 0.8
    assert similarity(ADENO, ADENO) == 1


def test_texts_that_state_nothing_are_compared_by_their_words() -> None:
    assert similarity("a b c", "a b d") == pytest.approx(2 / 3)
    assert similarity("", "") == 1
    assert similarity("a", "") == 0


def test_the_majority_wins_whatever_stands_first() -> None:
    for texts in ([SQUAMOUS, ADENO, ALSO_ADENO], [ADENO, SQUAMOUS, ALSO_ADENO]):
        chosen, agreed = choose(texts)
        assert texts[chosen] != SQUAMOUS
        brute = [sum(similarity(one, other) for other in texts if other is not one) / 2 for one in texts]
        assert agreed == pytest.approx(max(brute))
    assert choose([SQUAMOUS]) == (0, 1.0)
    assert choose([ADENO, ADENO, ADENO]) == (0, 1.0)


def test_alternatives_are_what_others_say_differently_most_frequent_first() -> None:
    others = [[SQUAMOUS], [ALSO_ADENO], [SQUAMOUS], ["Lung, core biopsy: necrosis."], ["Unrelated words"]]
    assert alternatives(ADENO, others) == (SQUAMOUS, "Lung, core biopsy: necrosis.")
    assert alternatives(ADENO, []) == ()
    assert agreement(ADENO, [[ALSO_ADENO], [ADENO, SQUAMOUS]]) == 1
    assert agreement(ADENO, [[ALSO_ADENO], [SQUAMOUS]]) == pytest.approx((1 + similarity(ADENO, SQUAMOUS)) / 2)
