"""Train VITA: a recipe, data, and a directory that `from_pretrained` reads in the end.

Works alone or under `accelerate launch`, on any number of processes. Call it again after an interruption and it goes on
from its newest checkpoint, with the same result as if it had never stopped.
"""

import argparse
import json
import logging
import os
import shutil
from datetime import timedelta
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from vita_hf import VitaVideoProcessor
from vita_hf.cards.training import DataSource
from vita_hf.data.clips.schedule import check_batch_size
from vita_hf.evaluation.scores import evaluate_split
from vita_hf.evaluation.splits import Split, check_split, read_split
from vita_hf.files import write_atomically
from vita_hf.hub import create_repository
from vita_hf.recipes import list_recipes, load_recipe
from vita_hf.training.initialization import build_model
from vita_hf.training.loop import LoopOptions, Trainer, TrainingInterrupted
from vita_hf.training.precision import check_sharding, choose_precision, keep_pixel_decoder_in_float32
from vita_hf.training.saving import describe_changes, flatten, push_to_hub, save_model
from vita_hf.training.sources import make_clips, own_source, parquet_source, recipe_sources

EXAMPLE = """examples:
  accelerate launch scripts/train.py --recipe ytvis2019-r50 --init vita-r50-coco --data-root data --output out
  python scripts/train.py --recipe ytvis2019-r50 --init facebook/mask2former-swin-tiny-coco-instance \\
      --train-json my.json --train-images frames --eval-json val.json --eval-images frames --output out \\
      --set training.steps=20000 "training.learning_rate_steps=[15000]"
  python scripts/train.py --recipe tiny-synthetic --train-json data/synthetic/train/annotations.json \\
      --train-images data/synthetic/train/JPEGImages --output out
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--recipe", required=True, help=f"a .yaml file, or one of {', '.join(list_recipes())}")
    add("--set", nargs="+", default=[], metavar="SECTION.KEY=VALUE", help="replace values of the recipe")
    add("--output", type=Path, required=True, help="directory for the model, its checkpoints and its log")
    add("--init", help="'scratch', 'backbone', or a directory or Hub id of a VITA or Mask2Former; see the recipe")
    data = parser.add_argument_group("data: what the recipe names, below --data-root, or your own")
    data.add_argument("--data-root", type=Path, help="folder with ytvis_2019/, ytvis_2021/, ovis/, coco/ as unpacked")
    data.add_argument(
        "--train-json",
        type=Path,
        help="YouTube-VIS's form (COCO recipes: COCO's); gives the classes",
    )
    data.add_argument("--train-images", type=Path, help="folder that its file names are relative to")
    data.add_argument("--train-parquet", metavar="DIR_OR_ID", help="what prepare_dataset.py wrote, here or on the Hub")
    data.add_argument("--streaming", action="store_true", help="read the Parquet shards as they are needed")
    data.add_argument("--eval-json", type=Path, help="annotations to score against")
    data.add_argument("--eval-images", type=Path)
    data.add_argument("--skip-broken", action="store_true", help="leave out, count and log what can't be read")
    run = parser.add_argument_group("run")
    run.add_argument("--micro-batches", type=int, help="forward passes a step is cut into (gradient accumulation)")
    run.add_argument("--workers", type=int, default=2, help="processes that load clips, for each training process")
    run.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    run.add_argument("--log-every", type=int, default=20, metavar="STEPS")
    run.add_argument("--checkpoint-every", type=int, default=1000, metavar="STEPS")
    run.add_argument("--keep", type=int, default=2, help="checkpoints to keep")
    run.add_argument("--evaluate-every", type=int, default=0, metavar="STEPS", help="0: only at the end")
    run.add_argument("--overwrite", action="store_true", help="begin anew: remove what --output holds of a training")
    run.add_argument("--report-to", help="a tracker that accelerate knows, for example tensorboard or wandb")
    run.add_argument("--push-to-hub", metavar="REPO", help="upload the finished model")
    run.add_argument("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    args = parser.parse_args(argv)
    if (args.train_json is None) != (args.train_images is None):
        parser.error("expected both --train-json and --train-images, or neither")
    if (args.eval_json is None) != (args.eval_images is None):
        parser.error("expected both --eval-json and --eval-images, or neither")
    if sum(source is not None for source in (args.data_root, args.train_json, args.train_parquet)) != 1:
        parser.error("expected one of --data-root, --train-json (with --train-images), and --train-parquet")
    if args.streaming and (args.train_parquet is None or args.skip_broken):
        parser.error("--streaming: expected --train-parquet, and no --skip-broken (a stream has no other row to take)")
    return args


def _describe(split: Split) -> DataSource:
    return DataSource(name=f"{split.path.resolve().parent.name}/{split.path.stem}", videos=len(split.clips))


def train(args: argparse.Namespace) -> None:
    init = [] if args.init is None else [f"training.init={json.dumps(args.init)}"]
    recipe = load_recipe(args.recipe, [*args.set, *init])
    settings = recipe.training
    if settings.init is None:
        raise ValueError(
            f"recipe {args.recipe} starts from another model: expected --init with a directory or Hub id (the "
            "converted COCO checkpoint of the same backbone, as the released models did; or a Mask2Former), "
            "'backbone' or 'scratch'"
        )
    if args.report_to and args.report_to not in {str(name) for name in get_available_trackers()}:
        raise ValueError(
            f"--report-to {args.report_to}: accelerate has no such tracker, or its package isn't installed"
        )
    micro_batches = args.micro_batches
    if micro_batches is None:
        micro_batches = int(os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"))
    options = LoopOptions(
        output=args.output,
        micro_batches=micro_batches,
        workers=args.workers,
        log_every=args.log_every,
        checkpoint_every=args.checkpoint_every,
        keep=args.keep,
        evaluate_every=args.evaluate_every,
    )
    accelerator = Accelerator(
        cpu=args.cpu,
        mixed_precision=choose_precision(settings.mixed_precision, args.cpu),
        log_with=args.report_to,
        project_config=ProjectConfiguration(project_dir=str(args.output), logging_dir=str(args.output / "trackers")),
        # Scoring and reading annotations happen in one process while the others wait.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
    )
    accelerator.gradient_accumulation_steps = 1  # the loop divides by itself
    check_sharding(accelerator, args.eval_json is not None)
    check_batch_size(settings.batch_size, micro_batches, accelerator.num_processes)
    logger = get_logger("vita_hf.train", log_level="INFO")

    if args.overwrite and accelerator.is_main_process:
        for name in ("checkpoints", "evaluation", "trackers"):
            shutil.rmtree(args.output / name, ignore_errors=True)
        for name in ("log.jsonl", "recipe.yaml"):
            (args.output / name).unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    record = args.output / "recipe.yaml"
    if record.is_file():
        changed = describe_changes(yaml.safe_load(record.read_text()), recipe.to_dict())
        if changed:
            raise ValueError(
                f"{args.output} holds a training of another recipe ({', '.join(changed)} differ): choose another "
                "--output, or --overwrite"
            )

    with accelerator.main_process_first():
        if args.train_json is not None:
            sources = own_source(recipe, args.train_json, args.train_images, args.skip_broken)
        elif args.train_parquet is not None:
            sources = parquet_source(recipe, args.train_parquet, args.streaming)
        else:
            sources = recipe_sources(recipe, args.data_root, args.skip_broken)
    split = read_split(args.eval_json, args.eval_images) if args.eval_json is not None else None
    if split is not None:
        if not split.annotated:
            raise ValueError(f"{args.eval_json} has no annotations to score against")
        check_split(split, sources[0].data.id2label)

    processor = VitaVideoProcessor(**recipe.processor)
    torch.manual_seed(settings.seed)
    model = build_model(recipe.model, sources[0].data.id2label, settings.init)
    if accelerator.mixed_precision == "fp16":
        keep_pixel_decoder_in_float32(model)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    clips = make_clips(sources, settings, args.skip_broken)
    evaluate, top_k = None, recipe.evaluation.top_k
    if split is not None:

        def evaluate(model, step):
            folder = args.output / "evaluation" / f"step-{step:09d}"
            return evaluate_split(accelerator, model, processor, split, folder, top_k)

    data = {
        "sources": [[source.data.name, source.count_rows()] for source in sources],
        "classes": list(model.config.id2label.values()),
    }
    trainer = Trainer(accelerator, model, processor, settings, clips, options, evaluate, data)
    resumed = trainer.resume()
    if args.push_to_hub and accelerator.is_main_process:
        create_repository(args.push_to_hub, "model")  # complains now, not after the training
    if accelerator.is_main_process:
        write_atomically(record, yaml.safe_dump(recipe.to_dict(), sort_keys=False).encode())
    if args.report_to:
        values = {k: v if isinstance(v, int | float | str) else str(v) for k, v in flatten(recipe.to_dict()).items()}
        accelerator.init_trackers("vita-hf", config=values)  # tensorboard takes no lists
    logger.info(
        "%s step %d of %d; %s; %.2f M parameters; batches of %d in %d micro-batches on %d processes (%s, %s)",
        "going on from" if resumed else "starting at",
        trainer.step,
        settings.steps,
        ", ".join(f"{source.data.name}: {source.count_rows() or 'streamed'} rows" for source in sources),
        sum(p.numel() for p in trainer.model.parameters() if p.requires_grad) / 1e6,
        settings.batch_size,
        options.micro_batches,
        accelerator.num_processes,
        accelerator.device,
        accelerator.mixed_precision,
    )
    try:
        trainer.run()
    except TrainingInterrupted:
        accelerator.end_training()
        raise
    save_model(
        accelerator,
        trainer,
        processor,
        args.output,
        recipe=recipe,
        recipe_name=args.recipe,
        overrides=args.set,
        data=[DataSource(name=s.data.name, videos=s.count_rows(), weight=s.weight) for s in sources],
        evaluated_on=None if split is None else _describe(split),
    )
    logger.info("written: %s", args.output)
    if args.push_to_hub and accelerator.is_main_process:
        push_to_hub(args.output, args.push_to_hub)
    accelerator.end_training()


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    try:
        train(args)
    except TrainingInterrupted as interruption:
        raise SystemExit(str(interruption)) from None
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
