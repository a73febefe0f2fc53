"""The metric as a Space: upload an annotation and a results file, get the table."""

from pathlib import Path

import gradio as gr

import evaluate

# By file: `evaluate` would look in a folder for a script of the folder's name, and a Space's is "app".
folder = Path(__file__).resolve().parent
metric = evaluate.load(str(folder / "vis_ap.py"))


def score(annotations: str | None, results: str | None) -> tuple[dict, list[list]]:
    """The numbers, and a row of name and AP for each category."""
    if annotations is None or results is None:
        raise gr.Error("Upload both files: annotations with videos, categories and annotations, and a results.json.")
    try:
        numbers = metric.compute(predictions=results, references=annotations)
    except ValueError as error:
        raise gr.Error(str(error), duration=None) from None
    return numbers, [[name, ap] for name, ap in numbers.pop("per_category").items()]


readme = (folder / "README.md").read_text(encoding="utf-8")
demo = gr.Interface(
    fn=score,
    inputs=[
        gr.File(label="Annotations (YouTube-VIS or OVIS json)", type="filepath"),
        gr.File(label="results.json", type="filepath"),
    ],
    outputs=[gr.JSON(label="Numbers"), gr.Dataframe(headers=["category", "AP"], label="By category")],
    title="Metric: vis_ap",
    description="Average precision of video instance segmentation. Official validation files carry no annotations: "
    "hold out videos of the training file.",
    article=readme.split("---\n", 2)[-1],
)

if __name__ == "__main__":
    demo.launch()
