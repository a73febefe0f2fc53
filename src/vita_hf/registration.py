"""The public classes. Importing this module registers them with transformers."""

from transformers import AutoConfig, AutoModel, AutoModelForUniversalSegmentation, AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from . import backbones  # registers VitaResNetConfig
from .configuration_vita import VitaConfig
from .image_processing_vita import VitaVideoProcessor
from .modeling_vita import VitaForVideoInstanceSegmentation, VitaModel, VitaPreTrainedModel
from .pipeline_vita import VideoInstanceSegmentationPipeline
from .tracks.instances import VideoInstances

AutoConfig.register(VitaConfig.model_type, VitaConfig, exist_ok=True)
AutoModel.register(VitaConfig, VitaModel, exist_ok=True)
AutoModelForUniversalSegmentation.register(VitaConfig, VitaForVideoInstanceSegmentation, exist_ok=True)
AutoVideoProcessor.register(VitaConfig, VitaVideoProcessor, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "video-instance-segmentation",
    pipeline_class=VideoInstanceSegmentationPipeline,
    pt_model=AutoModelForUniversalSegmentation,
    type="video",
)

__all__ = [
    "VideoInstanceSegmentationPipeline",
    "VideoInstances",
    "VitaConfig",
    "VitaForVideoInstanceSegmentation",
    "VitaModel",
    "VitaPreTrainedModel",
    "VitaVideoProcessor",
    "backbones",
]
