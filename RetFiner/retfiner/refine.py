"""A refinement run from settings to files: parse, build, fit are all there is.

Here alone the settings become plain arguments; nothing below takes them whole. Paths and tables are
looked at before torch is imported, so that a wrong one is said at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from retfiner.common.cli import as_plain, changed_settings
from retfiner.common.faults import TRAINING_MEMORY, explained_faults
from retfiner.common.progress import LOADING, progress
from retfiner.config import RefineConfig
from retfiner.data.manifest import TRAINING, VALIDATING, Manifest, read_splits
from retfiner.data.pair_table import NO_PATIENT_COLUMN, Columns, Reading
from retfiner.data.probing_pictures import require_not_probed
from retfiner.data.reference import split_reference
from retfiner.text.folder import require_text_encoder
from retfiner.training.logger_packages import require_logger_packages
from retfiner.training.resume_path import AUTO, find_resume_checkpoint
from retfiner.vision.published.find import weights_at
from retfiner.vision.sniff import require_checkpoint_file

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from retfiner.data.batch import Collate
    from retfiner.data.datamodule import Pairs, PairsDataModule, Transforms
    from retfiner.text.encoder import CrossAttentionBert
    from retfiner.training.distributed.launch import Hardware
    from retfiner.training.module import RefinementModule
    from retfiner.training.recipe import Basis, Choice, Recipe
    from retfiner.training.resume import ResumedRun
    from retfiner.training.summary import RunResult
    from retfiner.vision import Backbone

Tables = tuple[Manifest, Manifest]
"""The pairs to train on and those to validate on."""


class Parts(NamedTuple):
    """What a run is made of.

    Attributes:
        hardware: The devices.
        recipe: How it trains, and why so.
        module: The model with its losses and optimiser.
        batches: The data.
        steps_per_epoch: Batches of an epoch.
        run_name: What its folder is called.
        resumed: The run to go on with, if any.
    """

    hardware: Hardware
    recipe: Choice
    module: RefinementModule
    batches: PairsDataModule
    steps_per_epoch: int
    run_name: str
    resumed: ResumedRun | None


@explained_faults(memory=TRAINING_MEMORY)
def refine(config: RefineConfig) -> RunResult:
    """Refine a vision model on image-report pairs and write everything into the run's folder.

    Raises:
        InputError: If anything the user gave cannot be used.
    """
    config = find_tables(find_weights(config))
    tables = read_tables(config)
    parts = build(config, tables)
    return fit(config, parts)


def find_weights(config: RefineConfig) -> RefineConfig:
    """Put the downloaded file in place of a name such as ``RETFound``; a path stays as it is.

    Raises:
        InputError: If the weights of that name are not downloaded yet.
    """
    found = weights_at(config.model_weights)
    return config if found == config.model_weights else replace(config, model_weights=found)


def find_tables(config: RefineConfig) -> RefineConfig:
    """Put both tables in place of the folder that ``prepare_pairs.py`` wrote them to."""
    folder = config.train_csv
    if folder is None or not folder.is_dir():
        return config
    validation = config.val_csv or folder / VALIDATING
    return replace(config, train_csv=folder / TRAINING, val_csv=validation)


def check_paths(config: RefineConfig) -> None:
    """Check that what the settings name is there; torch is not imported for it.

    Raises:
        InputError: If a file, a folder or a package is missing, or something else than it should
            be.
    """
    require_logger_packages(config.logger)
    if config.resume not in (None, AUTO):
        find_resume_checkpoint(config.resume)
    if config.dataset is not None:
        split_reference(config.dataset)
    require_text_encoder(config.text_encoder)
    require_checkpoint_file(config.model_weights)


def read_tables(config: RefineConfig) -> Tables | None:
    """Read and check the tables; torch is not imported for it either.

    Returns:
        Both parts of the pairs; None where they come from a data set of the user's own.

    Raises:
        InputError: If a column or a row cannot be used, or a patient is on both sides.
    """
    if config.train_csv is None:
        return None
    tables = read_splits(
        config.train_csv,
        config.val_csv,
        val_fraction=config.val_fraction,
        seed=config.seed,
        image_root=config.image_root,
        columns=Columns(
            config.image_column,
            config.report_column,
            config.patient_column,
            slice=config.slice_column,
            group=config.group_column,
        ),
        on_bad_row=config.on_bad_row,
        reading=Reading(
            config.table_encoding,
            config.first_slice,
            config.patient_ids,
            config.strip_common,
            config.report_part == "findings",
        ),
    )
    require_not_probed(tables, config.not_in)
    return tables


def build(config: RefineConfig, tables: Tables | None) -> Parts:
    """Load and assemble everything a run needs.

    Args:
        config: The settings.
        tables: What :func:`read_tables` returned.

    Raises:
        InputError: If anything cannot be read or does not go together.
    """
    with progress(LOADING):
        from retfiner.training.torchmetrics_later import read_torchmetrics_later

        read_torchmetrics_later()
        from retfiner.data.after_cut import cut_reports, require_readable
        from retfiner.data.fingerprint import describe_data
        from retfiner.text.encoder import load_text_encoder
        from retfiner.text.tokenizer import load_tokenizer
        from retfiner.training.build import describe
        from retfiner.training.distributed.launch import resolve_hardware
        from retfiner.training.recipe import choose_recipe, settings_of, train_interpolation
        from retfiner.training.resume import choose_run
        from retfiner.training.trainer import begin
        from retfiner.vision import evaluation_transform, load_backbone

    begin(config.seed)
    hardware = resolve_hardware(
        config.accelerator,
        config.devices,
        config.num_nodes,
        config.strategy,
        batch_size=config.contrast_batch or config.batch_size,
        precision=config.precision,
        prefers_float16=config.recipe == "published",
        compile=config.compile,
    )
    backbone = load_backbone(config.model_weights, config.backbone, config.image_size)
    text, tokenizer = load_text_encoder(config.text_encoder), load_tokenizer(config.text_encoder)
    warn_of_modalities(tables, backbone, config.model_weights)
    given = settings_of(config)
    validation = evaluation_transform(backbone)
    train = replace(validation, interpolation=train_interpolation(config.recipe, given))
    pairs = load_pairs(config, tables, (train, validation))
    collate = make_collate(config, tokenizer, backbone.input_shape)
    if tables is not None:
        reports = [collate.part_of(report) for table in tables for report in table.reports]
        cut = cut_reports(tokenizer, reports, config.max_text_tokens)
        require_readable(cut, config.max_alike)
    basis = basis_of(config, backbone, text, pairs, hardware.processes)
    choice = choose_recipe(config.recipe, given, basis)
    description = describe(
        backbone,
        text,
        tokenizer,
        settings=as_plain(config) | as_plain(choice.recipe),
        given=given,
        data=describe_data(pairs, config.dataset),
        lora_scale=config.lora_scale(choice.recipe.lora_rank),
    )
    name = name_of_run(config, backbone, choice.recipe)
    resumed = choose_run(config.resume, config.output_dir, name, description)
    if resumed is not None:
        choice = choose_recipe(config.recipe, given, basis, resumed.chosen)
        description["settings"] |= as_plain(choice.recipe)
        # Given back by a config.yaml, it is still what the recipe chose.
        description["given"] = sorted(given.keys() - resumed.chosen.keys())
        description["lora_scale"] = config.lora_scale(choice.recipe.lora_rank)
    batches = load_batches(config, choice.recipe, pairs, collate)
    steps = batches.steps_per_epoch(hardware.processes)
    module = build_module(config, choice.recipe, backbone, text, tokenizer.mask_token_id)
    module.description = description
    return Parts(hardware, choice, module, batches, steps, name, resumed)


def name_of_run(config: RefineConfig, backbone: Backbone, recipe: Recipe) -> str:
    """Name a run's folder by what tells runs apart."""
    from retfiner.training.run_folder import run_name

    return run_name(
        backbone.spec.name,
        config.weights,
        temperature=config.temperature,
        exponential_temp=config.exponential_temp,
        lr=recipe.lr,
        batch_size=recipe.pairs_per_batch,
        note=config.note,
    )


def warn_of_modalities(tables: Tables | None, backbone: Backbone, weights: Path) -> None:
    """Say so where images are of a kind that the backbone does not know, or sees as gray."""
    kinds = set() if tables is None else tables[0].modalities | tables[1].modalities
    from retfiner.training.distributed.launch import rank_zero_print

    known, name = backbone.spec.modalities, backbone.spec.name
    of_fundus = any(word in weights.name.lower() for word in ("cfp", "_meh", "_shanghai"))
    if known == ("oct",) and of_fundus:
        # RETFound_mae_natureCFP.pth and its siblings of two hospitals, which share OCT's layout
        known = ("fundus",)
    strange = sorted(kinds - set(known)) if known else []
    if strange:
        rank_zero_print(
            f"Note:           {name} was pretrained on {' and '.join(known)}, and the table has"
            f" {' and '.join(strange)} images too: it starts from nothing there"
        )
    if "fundus" in kinds and backbone.spec.in_chans == 1:
        rank_zero_print(f"Note:           {name} takes one channel: fundus photographs become gray")


def make_collate(
    config: RefineConfig, tokenizer: PreTrainedTokenizerBase, image_shape: tuple[int, int, int]
) -> Collate:
    """Say how pairs become a batch, as the text encoder and the backbone take it."""
    from retfiner.data.batch import Collate

    draws_sentences = config.report_part == "random_sentences"
    return Collate(
        tokenizer,
        config.max_text_tokens,
        image_shape,
        config.on_bad_row,
        config.seed if draws_sentences else None,
    )


def load_batches(
    config: RefineConfig, recipe: Recipe, pairs: Pairs, collate: Collate
) -> PairsDataModule:
    """Make loaders of the data."""
    from retfiner.data.datamodule import PairsDataModule
    from retfiner.training.distributed.join import BatchJoiner

    return PairsDataModule(
        pairs,
        collate,
        BatchJoiner(),
        batch_size=recipe.pairs_per_batch,
        seed=config.seed,
        num_workers=config.num_workers,
        worker_start=None if config.worker_start == "auto" else config.worker_start,
        draws=config.draws_anew,
    )


def build_module(
    config: RefineConfig,
    recipe: Recipe,
    backbone: Backbone,
    text: CrossAttentionBert,
    mask_token_id: int,
) -> RefinementModule:
    """Assemble the model, choose what of it trains, and give it its losses and optimiser."""
    from retfiner.training.adaptation import adapt
    from retfiner.training.build import build_model
    from retfiner.training.module import RefinementModule

    model = build_model(
        backbone,
        text,
        mask_token_id,
        losses=config.losses,
        max_text_tokens=config.max_text_tokens,
        temperature=config.temperature,
        exponential_temp=config.exponential_temp,
        duplicate_reports=recipe.duplicate_reports,
        random_token_from=recipe.random_token_from,
        redraw_masks=recipe.redraw_masks,
        contrast=config.contrast,
        chunk_size=None if recipe.contrast_batch is None else recipe.batch_size,
        pooling=None if config.group_column is None else config.pooling,
    )
    adapt(
        model,
        config.losses,
        unfreeze_last_blocks=0 if recipe.vision_lr == 0 else recipe.unfreeze_last,
        freeze_text=recipe.text_lr == 0,
        lora_rank=recipe.lora_rank,
        lora_scale=config.lora_scale(recipe.lora_rank),
        fixed_temp=recipe.fixed_temp,
        drop_path=recipe.drop_path,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    return RefinementModule(
        model,
        config.weights,
        {"itm": {"negatives": recipe.itm_negatives}},
        lr=recipe.lr,
        vision_lr=recipe.vision_lr,
        text_lr=recipe.text_lr,
        weight_decay=config.weight_decay,
        lr_schedule=recipe.lr_schedule,
        warmup_steps=recipe.warmup_steps,
        fusion_warmup_steps=recipe.fusion_warmup_steps if "itc" in config.losses else 0,
        layer_decay=config.layer_decay,
        compact_states=config.optimizer_states == "bfloat16",
        augment=recipe.augment,
        seed=config.seed,
    )


def load_pairs(config: RefineConfig, tables: Tables | None, transforms: Transforms) -> Pairs:
    """Make data sets of the tables, or of the class that the settings name.

    Args:
        config: The settings.
        tables: What :func:`read_tables` returned.
        transforms: What turns a B-scan into the backbone's input, in training and in validation.

    Raises:
        InputError: If the data cannot be used, or a part has fewer than two pairs.
    """
    from retfiner.data.datamodule import pairs_of_dataset, pairs_of_tables
    from retfiner.data.exams import Slices

    if tables is not None:
        slices = Slices(config.slices, config.max_slices, config.seed)
        return pairs_of_tables(tables, transforms, config.image_cache, slices)
    assert config.dataset is not None
    return pairs_of_dataset(
        config.dataset,
        transforms,
        image_root=config.image_root,
        patients_known=config.patient_column != NO_PATIENT_COLUMN,
        val_fraction=config.val_fraction,
        seed=config.seed,
    )


def basis_of(
    config: RefineConfig,
    backbone: Backbone,
    text: CrossAttentionBert,
    pairs: Pairs,
    processes: int,
) -> Basis:
    """Collect what a recipe goes by."""
    from retfiner.text.encoder import FROM_REPORTS
    from retfiner.training.recipe import Basis

    train, validation = (None, None) if pairs.manifests is None else pairs.manifests
    return Basis(
        backbone=backbone.spec.name,
        blocks=len(backbone.encoder.blocks),  # type: ignore[arg-type]
        text_from_reports=getattr(text.config, FROM_REPORTS, False),
        is_adapted=config.layer_decay != 1,
        pairs=pairs.train_size,
        patients=None if train is None else train.patient_count,
        validation_patients=None if validation is None else validation.patient_count,
        batches_per_step=processes * config.accumulate_grad_batches,
        losses=[name for name, weight in config.weights.items() if weight],
        learns_temperature=config.exponential_temp or config.contrast == "sigmoid",
    )


def fit(config: RefineConfig, parts: Parts) -> RunResult:
    """Train, or go on training, in the run's folder.

    Raises:
        InputError: If the run to go on with is another one, or a number leaves the finite ones.
    """
    from retfiner.training.callbacks.guard import build_guard
    from retfiner.training.distributed.launch import is_rank_zero, rank_zero_print
    from retfiner.training.loggers import build_loggers
    from retfiner.training.monitor import find_monitors
    from retfiner.training.no_effect import no_effect_notes
    from retfiner.training.recipe import schedule_notes
    from retfiner.training.resume import read_resumed_run
    from retfiner.training.run_folder import open_run_folder, write_config
    from retfiner.training.stop_signals import StopSignals
    from retfiner.training.summary import announce, report
    from retfiner.training.trainer import build_trainer, run_facts, train

    hardware, (recipe, reasons), module, batches, steps_per_epoch, name, run = parts
    guard = build_guard(batches, recipe.batch_size)
    monitors = find_monitors(
        recipe.monitor, config.losses, module.model.is_contrastive, bool(guard)
    )
    existing = None if run is None else run.folder
    with open_run_folder(config.output_dir, name, existing) as folder, StopSignals() as signals:
        run = None if run is None else read_resumed_run(run.path)  # now that it is ours
        if run is not None and run.is_finished(recipe.max_epochs, recipe.patience):
            rank_zero_print(f"The run in {folder} is finished: {run.epochs} epochs.")
            if is_rank_zero():
                run.require_results()
            return report(folder, batches, monitors[0])
        trainer = build_trainer(
            hardware,
            folder,
            signals,
            guard,
            build_loggers(config.logger, folder, module.description["provenance"]["run_id"]),
            monitors=monitors,
            steps_per_epoch=steps_per_epoch,
            max_epochs=recipe.max_epochs,
            patience=recipe.patience,
            accumulate_grad_batches=config.accumulate_grad_batches,
            gradient_clip_val=config.gradient_clip_val,
            checkpoint_every_n_steps=config.checkpoint_every_n_steps,
            image_cache=config.image_cache,
            can_cache_images=config.can_cache_images,
            deterministic=config.deterministic,
        )
        if is_rank_zero():
            write_config(folder, module.description["settings"], run_facts(trainer, module))
        steps = recipe.max_epochs * -(-steps_per_epoch // config.accumulate_grad_batches)
        before = None if run is None else run.description["settings"]["max_epochs"]
        notes = schedule_notes(recipe, steps, before)
        notes += no_effect_notes(module.description["settings"], changed_settings(config))
        announce(trainer, module, batches, folder, [*reasons, *notes])
        train(trainer, module, batches, None if run is None else run.path, compile=config.compile)
    return report(folder, batches, monitors[0])
