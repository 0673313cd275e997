"""A pipeline is its text."""

from __future__ import annotations

import contextlib

from hypothesis import example, given
from hypothesis import strategies as st

from bpfpatch.errors import OptionError
from bpfpatch.passes import Dce, Nops, Pipeline, Sprinkle

PASSES = st.one_of(
    st.builds(Dce, branches=st.booleans(), functions=st.booleans()),
    st.just(Nops()),
    st.builds(
        Sprinkle,
        every=st.integers(1, 1 << 40),
        seed=st.none() | st.integers(0, 1 << 80),
    ),
)


@given(st.lists(PASSES).map(tuple).map(Pipeline))
def test_parsing_the_text_gives_the_pipeline(pipeline: Pipeline) -> None:
    """parse(str(p)) == p, and the text is a fixed point."""
    text = str(pipeline)
    assert Pipeline.parse(text) == pipeline
    assert str(Pipeline.parse(text)) == text


@given(st.text(alphabet="dcenops{}=,12 every-_\n", max_size=40))
@example("dce{},")
@example("{" * 30)
def test_any_text_is_a_pipeline_or_an_option_error(text: str) -> None:
    """No text brings another error."""
    pipeline = Pipeline(())
    with contextlib.suppress(OptionError):
        pipeline = Pipeline.parse(text)
    assert Pipeline.parse(str(pipeline)) == pipeline
