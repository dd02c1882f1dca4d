"""What `benchmarks/scaling.py` counts; `docs/scaling.md` is based on it."""

import argparse

import jax
import numpy as np

from benchmarks.scaling import Reduction, Subject, list_reductions, list_required_reductions, make_chain, random_batch
from hvq_jax.devices.parallel import Parallel

PROGRAM = """
  %psum.1 = f32[32]{0} all-reduce(%a), channel_id=1, to_apply=%add
  %all-reduce.2 = (s32[512]{0}, f32[3,3,8,8]{3,2,1,0}, /*index=2*/bf16[]) all-reduce(%psum.1, %b, %c), to_apply=%add
  ROOT %all-reduce-start.3 = f32[2,4]{1,0} all-reduce-start(%d), to_apply=%add
  %e = f32[2,4]{1,0} all-reduce-done(%all-reduce-start.3)
  %f = f32[9]{0} multiply(%psum.1, %psum.1), metadata={op_name="all-reduce"}
"""


def test_all_reduces_are_read_off_the_compiled_program():
    assert list_reductions(PROGRAM) == [
        Reduction([[32]], 128),
        Reduction([[512], [3, 3, 8, 8], []], 4 * 512 + 4 * 576 + 2),
        Reduction([[2, 4]], 32),
    ]


def test_the_compiled_step_reduces_what_its_mathematics_asks_for_and_nothing_else():
    options = argparse.Namespace(config="default", latent="combined", image=[8, 8, 1], dim=4, codes=16)
    subject = Subject.from_options(options)
    state, batch = subject.state(), subject.parallel.shard(random_batch(8, (8, 8, 1)))
    step = subject.compiled(state, batch, subject.parallel.axis_name)
    compiled = list_reductions(step.as_text())
    required = list_required_reductions(subject, state, batch)
    assert sum(len(reduction.shapes) for reduction in compiled) == sum(arrays for arrays, _ in required.values())
    assert sum(reduction.num_bytes for reduction in compiled) == sum(size for _, size in required.values())
    assert required["sums of the moving averages"] == (1, 16 * 4 * 4)


def test_the_chain_makes_all_reductions_of_the_list():
    reductions = [Reduction([[3], [2, 2]], 28), Reduction([[5]], 20)]
    parallel = Parallel("pmap")
    ones = parallel.shard([[np.ones((parallel.num_devices, *shape)) for shape in r.shapes] for r in reductions])
    chain = parallel.compile(make_chain(reductions))
    assert chain(None, ones) == jax.device_count()
    assert len(list_reductions(chain.lower(None, ones).compile().as_text())) == 2
