import unittest

from PIL.Image import Image
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers_tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs

from vita_hf import VitaVideoProcessor
from vita_hf.image_processing_vita import resize_output_size


class VitaVideoProcessingTester:
    batch_size = 3
    num_frames = 4
    num_channels = 3

    def prepare_video_processor_dict(self):
        return {
            "do_resize": True,
            "size": {"shortest_edge": 20},
            "crop_size": {"height": 18, "width": 18},  # stored, as the tests expect of every processor; never used
            "do_normalize": True,
            "image_mean": IMAGENET_DEFAULT_MEAN,
            "image_std": IMAGENET_DEFAULT_STD,
            "do_convert_rgb": True,
            "padding": True,  # the tests batch videos of different sizes
        }

    def expected_output_video_shape(self, videos):
        sizes = []
        for video in videos:
            frame = video[0]
            if isinstance(frame, Image):
                height, width = frame.height, frame.width
            else:
                height, width = frame.shape[1:] if frame.shape[0] == 3 else frame.shape[:2]
            sizes.append(resize_output_size(height, width, shortest_edge=20))
        height, width = (-(-max(sides) // 32) * 32 for sides in zip(*sizes))
        return self.num_frames, self.num_channels, height, width

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class VitaVideoProcessingTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = VitaVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VitaVideoProcessingTester()

    @property
    def video_processor_dict(self):
        return self.video_processor_tester.prepare_video_processor_dict()
