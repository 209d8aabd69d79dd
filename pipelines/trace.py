"""Trace the left ventricle of the videos to be released, at end-diastole and end-systole.

python -m pipelines.trace phantom

Writes tracings/<dataset>: VolumeTracings.csv in EchoNet-Dynamic's format, volumes.csv with ESV, EDV
and the EF that follows or why a video could not be traced, and a picture. Without a segmentation
model none.json says why there is nothing else.
"""

from functools import partial
from pathlib import Path

from echosyn.runtime.stage import command, torch_params

SHARD = 64  # videos, the unit of resume


def main(dataset: str) -> None:
    import shutil

    from echosyn.cluster import map_rows
    from echosyn.data.filelist import read_filelist
    from echosyn.models.segmenter import Segmenter
    from echosyn.report.plots import png
    from echosyn.report.tracing_plots import real_rows, synthetic_rows, tracing_figure
    from echosyn.runtime.files import atomic_dir, read_json, write_bytes
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import finish, work_dir
    from echosyn.segmentation.agreement import agreement
    from echosyn.segmentation.files import NONE
    from echosyn.segmentation.trace import (
        EF_TRACED,
        trace_videos,
        tracing_numbers,
        volume_table,
        write_tracings,
    )
    from echosyn.tracking import stage_run

    params = torch_params()
    samples, data = Path("samples") / dataset, Path("data/train") / dataset
    model, out = Path("models/segmentation") / dataset, Path("tracings") / dataset
    metrics, inputs = Path(f"metrics/trace/{dataset}.json"), [samples, data, model]
    work = work_dir(state_root(), "trace", dataset, {"seed": params.seed}, inputs)
    with stage_run("trace", dataset, {}, inputs, work) as run:
        if (model / NONE).is_file():
            print(f"{dataset}: not traced: {read_json(model / NONE)['reason']}")
            with atomic_dir(out) as tmp:
                shutil.copyfile(model / NONE, tmp / NONE)
            run.output(out)
            run.final({}, metrics)
            return
        net, over = Segmenter.load(model), partial(map_rows, work, SHARD, "trace", "video")
        listed = read_filelist(samples / "FileList.csv", "none")
        names = listed["FileName"].tolist()
        traced = trace_videos(samples, names, model, over, "synthetic")
        table = volume_table(names, traced, net.ml)
        numbers = tracing_numbers(listed, table, params.seed)
        real = read_filelist(data / "FileList.csv", "none")
        real = real[(real["Split"] == "TEST") & real["EF"].notna()].reset_index(drop=True)
        if len(real):
            fps, names = float(listed["FPS"].iloc[0]), real["FileName"].tolist()
            found = volume_table(names, trace_videos(data, names, model, over, "TEST", fps), net.ml)
            stated, ef = real["EF"].to_numpy(), found[EF_TRACED].to_numpy()
            numbers |= agreement("ef", stated, ef, params.seed, "_real")
            numbers["segmentation/traced_real"] = float(found[EF_TRACED].notna().mean())
        left = len(table) - int(table[EF_TRACED].notna().sum())
        print(f"{dataset}: {left} of {len(table)} videos could not be traced and are left out")
        rows = [*synthetic_rows(samples, table, traced), *real_rows(data, net)]
        with atomic_dir(out) as tmp:
            write_tracings(tmp, table, traced)
            if rows:
                write_bytes(tmp / "tracings.png", png(tracing_figure(rows)))
                run.artifact(tmp / "tracings.png")
        run.output(out)
        run.final(numbers, metrics)
    finish(work)


if __name__ == "__main__":
    command(main, dataset="name under `generate` in params.yaml")
