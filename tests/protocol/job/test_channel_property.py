"""M5 and M6 over one channel that several orders share: whatever is lost, late, cut or cancelled,
and whatever comes in which order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import Code
from protocol.ids import JobId
from tests.protocol.job.joint import Joint
from tests.protocol.job.paid import PaidChannel
from tests.protocol.job.test_joined import check, token_ids
from tests.protocol.samples import Agreement, agreement

ORDERS_MAX = 3
STEPS_MAX = 6000

deal_of_job = st.builds(
    dict,
    output_tokens_max=st.integers(1, 60),
    time_ms_max=st.sampled_from([20_000, 60_000]),
    cost_max=st.integers(50, 800),
    prices=st.tuples(st.sampled_from([0, 2_000_000]), st.sampled_from([1, 6_000_000])),
    chunk_tokens=st.integers(1, 8),
    is_prompt_first=st.booleans(),
)
deals = st.tuples(*[deal_of_job] * ORDERS_MAX).map(
    lambda each: [
        agreement(**changes, job=JobId(bytes([number]) * 16)) for number, changes in enumerate(each)
    ]
)
which = st.integers(0, ORDERS_MAX - 1)
deliver = st.sampled_from(["deliver_to_provider", "deliver_to_requester"])
moves = st.lists(
    st.one_of(
        st.tuples(which, deliver),
        st.tuples(which, deliver),
        st.tuples(which, st.just("model_says"), token_ids, st.text(max_size=5)),
        st.tuples(which, st.just("model_says"), token_ids.filter(len), st.text(max_size=5)),
        st.tuples(which, st.sampled_from(["model_ends", "model_fails", "cancel", "break_stream"])),
        st.tuples(which, st.just("begin")),
        st.tuples(st.just("count")),
        st.tuples(st.just("count")),
        st.tuples(st.just("time"), st.sampled_from([1, 100, 250, 6_000, 31_000])),
    ),
    max_size=60,
)


class Together:
    """Several jobs of one requester at one provider."""

    def __init__(self, deals_: list, chunks_max: int) -> None:
        self.channel = PaidChannel(chunks_max)
        self._deals = deals_
        self.joints: dict[int, Joint] = {}
        self.now = 0

    def begin(self, number: int) -> None:
        """Request, quote and order arrive, and the model begins."""
        if number in self.joints:
            return
        joint = Joint(self._deals[number], channel=self.channel, number=number, now=self.now)
        self.joints[number] = joint
        joint.deliver_to_provider()
        joint.deliver_to_requester()
        joint.deliver_to_provider()
        joint.model_begins()

    def move(self, step: tuple) -> None:
        match step:
            case ("count",):
                self.channel.count()
            case ("time", ms):
                self.pass_time(ms)
            case (number, "begin"):
                self.begin(number)
            case (number, name, *arguments):
                if number in self.joints:
                    getattr(self.joints[number], name)(*arguments)
        self.channel.check()

    def pass_time(self, ms: int) -> None:
        self.now += ms
        for joint in self.joints.values():
            joint.now = self.now - ms
            joint.pass_time(ms)

    def settle(self) -> None:
        """All that is under way arrives; then time alone ends every job."""
        for _ in range(STEPS_MAX):
            if self.channel.under_way:
                self.channel.count()
            for joint in self.joints.values():
                joint.deliver_to_provider()
                joint.deliver_to_requester()
            self.channel.check()
            running = [
                one
                for one in self.joints.values()
                if not (one.finished and (one.ended or one.provider is None))
            ]
            if not running:
                return
            if not any(one.to_provider or one.to_requester for one in self.joints.values()):
                self.pass_time(max(0, min(one.wakes_at for one in running) - self.now))
        raise AssertionError("the jobs never end")


@given(deals, st.integers(1, 3), moves)
@settings(max_examples=300, deadline=None)
def test_no_order_of_a_channel_costs_either_side_more_than_its_window(deals_, chunks_max, script):
    hold_together(deals_, chunks_max, script)


@pytest.mark.slow
@given(deals, st.integers(1, 3), moves)
@settings(max_examples=2000, deadline=None)
def test_the_same_many_times(deals_, chunks_max, script):
    hold_together(deals_, chunks_max, script)


def hold_together(deals_: list[Agreement], chunks_max: int, script: list[tuple]) -> None:
    together = Together(deals_, chunks_max)
    together.begin(0)
    for step in script:
        together.move(step)
    together.settle()
    for joint in together.joints.values():
        check(joint)
    ended = [one.ended for one in together.joints.values() if one.ended is not None]
    delivered, lost = sum(end.cost for end in ended), sum(end.lost for end in ended)
    window, channel = together.channel.window, together.channel
    assert delivered - lost <= channel.on_disk <= channel.signed, "what is not lost is held"
    assert window.lost <= lost
    assert lost <= chunks_max * channel.dearest, "a channel loses its window once"


@given(deals, st.integers(1, 3), st.data())
@settings(max_examples=150, deadline=None)
def test_orders_that_are_not_disturbed_all_come_to_their_end_and_nothing_is_lost(
    deals_, chunks_max, data
):
    """However small the window is that they share, none starves."""
    together = Together(deals_, chunks_max)
    for number in range(ORDERS_MAX):
        together.begin(number)
    for _ in range(data.draw(st.integers(1, 6))):
        for joint in together.joints.values():
            joint.model_says(data.draw(token_ids), "x")
    for joint in together.joints.values():
        joint.model_ends()
    together.settle()
    for joint in together.joints.values():
        check(joint)
        if joint.finished is not None and joint.finished.receipt is None:
            codes = {failure.code for failure in joint.finished.failures}
            assert codes <= {Code.COST_EXCEEDED}
    assert together.channel.window.unpaid == 0
