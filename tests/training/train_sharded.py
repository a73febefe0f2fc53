"""`vita-hf train` on gloo processes with Accelerate's FSDP, which Accelerate itself offers on GPUs only.

Everything but the choice of FSDP is Accelerate's own: wrapping, the optimizer's new parameters, checkpoints.
"""

import sys

from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from helpers.training_runs import run_training
from vita_hf.training import run
from vita_hf.training.loop import Trainer


def sharding_accelerator(**options) -> Accelerator:
    accelerator = Accelerator(**options)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        state_dict_type="FULL_STATE_DICT",
        reshard_after_forward=True,
    )
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    return accelerator


class ShardedTrainer(Trainer):
    def run(self) -> None:
        parameters = list(self.model.parameters())
        assert self.accelerator.num_processes == 2 and all(isinstance(p, DTensor) for p in parameters)
        super().run()
        print(f"sharded: {len(parameters)} parameters in {self.accelerator.num_processes} processes")


if __name__ == "__main__":
    run.Accelerator, run.Trainer = sharding_accelerator, ShardedTrainer
    run_training(sys.argv[1:])
