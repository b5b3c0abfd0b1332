"""A block that something else ends."""

import asyncio

import pytest

from producer.edge.interruption import Interruption


async def test_it_ends_a_wait_and_the_task_goes_on() -> None:
    gone = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(gone.set_result, None)
    with Interruption(gone) as interruption:
        await asyncio.Event().wait()
    assert interruption.happened
    await asyncio.sleep(0)  # not cancelled any more


async def test_a_future_that_is_done_already_ends_it_too() -> None:
    gone = asyncio.get_running_loop().create_future()
    gone.set_result(None)
    with Interruption(gone) as interruption:
        await asyncio.Event().wait()
    assert interruption.happened


async def test_what_comes_after_the_block_leaves_the_task_alone() -> None:
    gone = asyncio.get_running_loop().create_future()
    with Interruption(gone) as interruption:
        await asyncio.sleep(0)
    gone.set_result(None)
    interruption.stop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not interruption.happened


async def test_a_future_done_when_the_block_has_just_ended_leaves_the_task_alone() -> None:
    gone = asyncio.get_running_loop().create_future()
    gone.set_result(None)  # its callback comes with the next turn
    with Interruption(gone) as interruption:
        pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not interruption.happened


async def test_the_block_can_be_ended_by_hand() -> None:
    with Interruption() as interruption:
        asyncio.get_running_loop().call_soon(interruption.stop)
        await asyncio.Event().wait()
    assert interruption.happened


async def test_a_timeout_inside_it_is_its_own() -> None:
    gone = asyncio.get_running_loop().create_future()
    with Interruption(gone) as interruption, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    assert not interruption.happened


async def test_an_error_passes() -> None:
    with pytest.raises(ValueError, match="so"), Interruption(asyncio.get_running_loop().create_future()):
        raise ValueError("so")


@pytest.mark.parametrize("also_interrupted", [False, True])
async def test_somebody_elses_cancellation_passes(also_interrupted: bool) -> None:
    gone = asyncio.get_running_loop().create_future()

    async def work() -> None:
        with Interruption(gone):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    if also_interrupted:
        gone.set_result(None)
        await asyncio.sleep(0)  # the interruption is on its way now
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
