"""Ask whether a video model uses its condition: EF, class, heart rate and heart.

python -m pipelines.attribution lvdm

Animates real TEST hearts at every level of every condition with every other. Writes
attribution/<name>: how much of the variance each explains, EF shown against EF asked for, and a
picture with the maps of where each acts; metrics/attribution/<name>.json says it in numbers.
"""

import dataclasses
from pathlib import Path

from echosyn.runtime.stage import command, torch_params


def main(name: str) -> None:
    from echosyn.attribution.design import AttributionConfig, make_design
    from echosyn.attribution.experiment import (
        Models,
        measuring,
        read_answers,
        real_hearts,
        video_settings,
    )
    from echosyn.attribution.numbers import attribution_numbers, response_table, share_table
    from echosyn.cluster import run_shards
    from echosyn.data.latents import LatentSet
    from echosyn.diffusion.settings import SampleVideosConfig
    from echosyn.encoding.codec import VideoCodec
    from echosyn.models.published_video import load_video
    from echosyn.models.vae import Vae
    from echosyn.report.attribution_plots import attribution_figure
    from echosyn.report.plots import png
    from echosyn.runtime.files import atomic_dir, write_bytes, write_text
    from echosyn.runtime.process import state_root
    from echosyn.runtime.shards import finish, work_dir
    from echosyn.tracking import stage_run

    params = torch_params()
    cfg = params.named("attribution", "attribution", name, AttributionConfig)
    params.dataset(cfg.dataset)
    sampling = params.stage("sample_videos", SampleVideosConfig)
    data, latents, beats = (Path(p, "train", cfg.dataset) for p in ("data", "latents", "beats"))
    segmenter = Path("models/segmentation") / cfg.dataset
    models = Models(
        Path("models") / cfg.model, Path("models/vae"),
        measuring(segmenter) if cfg.ventricle else None,
    )  # fmt: skip
    inputs = [data, latents, beats, models.video, models.vae, segmenter]
    settings = {**dataclasses.asdict(cfg), "seed": params.seed}
    others = {"sampling": dataclasses.asdict(sampling)}
    work = work_dir(state_root(), "attribution", name, {**settings, **others}, inputs)
    out = Path("attribution") / name
    with stage_run("attribution", name, settings, inputs, work) as run:
        train = LatentSet(latents, "TRAIN", beats)
        design = make_design(load_video(models.video).spec, train, cfg)
        codec = VideoCodec(Vae.load(models.vae), precision=sampling.precision)
        test = LatentSet(latents, "TEST", beats)
        hearts = real_hearts(data, test, codec, cfg.hearts, cfg.ventricle)
        numbers: dict[str, float | str] = {}
        shares, responses, answered = [], [], {}
        for one in video_settings(cfg, sampling, models.video):
            title = f"guidance {one.guidance:g}"
            worker = models.maker(one, design, hearts.latents, params.seed)
            place = work / f"guidance-{one.guidance:g}"
            answers = read_answers(
                run_shards(place, len(hearts), 1, worker, "attribution", "heart", title)
            )
            table = share_table(answers, design)
            found = attribution_numbers(
                answers, table, design, hearts.regions, cfg.resamples, params.seed
            )
            numbers |= {f"attribution/{title.replace(' ', '_')}/{k}": v for k, v in found.items()}
            print(f"{name}, {title}: {found.get('verdict', 'EF was not compared')}")
            shares.append(table.assign(guidance=one.guidance))
            responses.append(response_table(answers, design).assign(guidance=one.guidance))
            answered[one.guidance] = answers
        figure = attribution_figure(answered, shares, design, hearts.regions)
        with atomic_dir(out) as tmp:
            for file, tables in (("shares.csv", shares), ("response.csv", responses)):
                write_text(tmp / file, _csv(tables))
            write_bytes(tmp / "attribution.png", png(figure))
            run.artifact(tmp / "attribution.png")
        run.output(out)
        run.final(numbers, Path(f"metrics/attribution/{name}.json"))
    finish(work)


def _csv(tables: list) -> str:
    import pandas as pd

    return pd.concat(tables).to_csv(index=False, lineterminator="\n", float_format="%.6g")


if __name__ == "__main__":
    command(main, name="name under `attribution` in params.yaml")
