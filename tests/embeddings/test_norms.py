"""The paper's diagnosis in its shortest form: a word's vector grows, a crossed one keeps its norm.

The denoiser is untrained here, which is enough for norms; `tests.benchmarks.norms_of_new_words` trains one and measures
cosines and losses too.
"""

from __future__ import annotations

from tests.benchmarks.norms_of_new_words import World, learn, write_names


def test_a_word_s_norm_grows_threefold_and_a_crossed_one_s_stays(tmp_path):
    world = World()
    world.denoiser.requires_grad_(False)
    word = learn(world, "embeddings.from_word", steps=150)
    crossed = learn(world, "embeddings.cross_init", steps=150, names=str(write_names(tmp_path)))
    assert word.ratio >= 3
    assert 0.8 <= crossed.ratio <= 1.3
    assert crossed.ratio < word.ratio / 3
