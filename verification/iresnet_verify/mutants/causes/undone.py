"""What undoes a seeded slip, in the words of the diagnosis: of a change of the code it is right where it says so, and wrong elsewhere."""

from __future__ import annotations

SLIPS: dict[str, str] = {
    "terms-times-k": "`/` for `*` in log_det",
    "exponential-left-out-of-the-inverse": "exp before the result of a minus in inverse",
    "plus-the-shift-of-a-channel": "`-` for `+` in inverse",
    "minus-the-bias-in-the-slope": "`+` for `-` in jacobian",
    "activation-left-out-of-the-branch": "tanh before the result of `+` in g",
    "slope-without-its-square": "2 for 1 in jacobian",
    "one-plus-the-square": "`-` for `+` in jacobian",
    "plus-the-shift-of-the-first-half": "`-` for `+` in inverse",
    "slope-with-a-cube": "2 for 3 in jacobian",
    "tangent-left-out-of-the-log-det": "tanh before `r` in log_det",
    "exponential-left-out-between-the-steps": "exp before the result of a call in log_det",
    "plus-the-tangent-in-the-inverse": "`-` for `+` in inverse",
    "mask-above-the-diagonal": "-1 for 1 in scale_and_shift",
    "one-over-the-traces": "`*` for `/` in log_det",
    "one-minus-the-slope": "`+` for `-` in log_det",
    "minus-the-second-log-det": "`+` for `-` in log_det",
    "bracket-of-no-length": "`-` for `+` in inverse",
    "beta-outside-expm1": "2· before `y` in Softplus.inverse",
    "clamped-otherwise-in-the-log-det": "1/2· before the result of a call in Clamped.log_det",
}
UNDONE: dict[str, tuple[str, ...]] = {
    **{f"unseen/{name}": (f"one-change: {words}",) for name, words in SLIPS.items()},
    "later/at-minus-x": ("one-change: without the minus in <lambda>",),
}
