"""Two times at once: where a step starts, and where it goes."""

from typing import Any, NamedTuple


class Span(NamedTuple):
    """A step from t down to s, 0 <= s <= t <= 1; both are scalars, or arrays of one shape.

    A denoiser that is told a span answers with the x0 whose straight line goes to where the flow is at s: the one
    DDIM step from t to s towards it ends there. At s = 0 it is the end of the flow; at s = t it is the mean of x0.
    """

    t: Any
    s: Any

    @property
    def length(self):
        return self.t - self.s


def of(t: Any) -> Span:
    """A span as it is; a time as the span of no length, at which a flow map is a denoiser like others."""
    return t if isinstance(t, Span) else Span(t, t)
