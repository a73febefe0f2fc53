"""The metric as a Space: upload annotations and results, and see the scores."""

from pathlib import Path

import gradio as gr

from vita_hf.scoring import VisEvaluator


def score(annotations: str | None, results: str | None) -> tuple[dict, list[list]]:
    """Return the numbers, and a row of name and AP for each category."""
    if annotations is None or results is None:
        raise gr.Error("Upload both files: annotations with videos, categories and annotations, and a results.json.")
    try:
        evaluator = VisEvaluator(annotations)
        evaluator.add(results)
        numbers = evaluator.compute()
    except ValueError as error:
        raise gr.Error(str(error), duration=None) from None
    return numbers, [[name, ap] for name, ap in numbers.pop("per_category").items()]


demo = gr.Interface(
    fn=score,
    inputs=[
        gr.File(label="Annotations (YouTube-VIS or OVIS json)", type="filepath"),
        gr.File(label="results.json", type="filepath"),
    ],
    outputs=[gr.JSON(label="Scores"), gr.Dataframe(headers=["category", "AP"], label="By category")],
    title="Metric: vis_ap",
    description="Average precision of video instance segmentation. Official validation files carry no annotations: "
    "hold out videos of the training file.",
    article=(Path(__file__).parent / "README.md").read_text(encoding="utf-8").split("---\n", 2)[-1],
)

if __name__ == "__main__":
    demo.launch()
