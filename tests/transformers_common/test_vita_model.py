import unittest

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import SwinConfig, TimmBackboneConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.testing_utils import torch_device
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor

from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation, VitaModel

# The common tests look up by name which classes are models without a head, which cannot be trained on their own.
MODEL_MAPPING_NAMES["vita"] = "VitaModel"


class VitaModelTester:
    """A tiny model and inputs for it, under the names that the common tests look for.

    `hidden_states` and `attentions` are those of the object decoder, hence a sequence of video queries.
    """

    batch_size = 2
    num_frames = 3
    height, width = 32, 64
    num_labels = 3
    is_training = True

    hidden_size = 32
    num_queries = 6
    num_video_queries = seq_length = 5
    num_hidden_layers = 2
    num_attention_heads = 2
    num_hidden_states_types = 5  # backbone, pixel decoder, masked decoder, object encoder, object decoder

    def get_backbone_config(self):
        return SwinConfig(
            image_size=32,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            drop_path_rate=0.0,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )

    def get_config(self):
        return VitaConfig(
            backbone_config=self.get_backbone_config(),
            num_labels=self.num_labels,
            feature_size=self.hidden_size,
            mask_feature_size=self.hidden_size,
            hidden_dim=self.hidden_size,
            encoder_feedforward_dim=48,
            encoder_layers=2,
            decoder_layers=3,
            dim_feedforward=48,
            num_attention_heads=self.num_attention_heads,
            num_queries=self.num_queries,
            num_video_queries=self.num_video_queries,
            object_encoder_layers=2,
            object_encoder_window_size=2,
            object_decoder_layers=self.num_hidden_layers,
            video_num_attention_heads=self.num_attention_heads,
            video_dim_feedforward=48,
            num_last_layers=2,
            train_num_points=32,
        )

    def prepare_config_and_inputs_for_common(self):
        # The second video is shorter.
        frame_mask = torch.ones(self.batch_size, self.num_frames, dtype=torch.bool, device=torch_device)
        frame_mask[1, -1] = False
        inputs = {
            "pixel_values_videos": floats_tensor([self.batch_size, self.num_frames, 3, self.height, self.width]),
            "frame_mask": frame_mask,
        }
        return self.get_config(), inputs

    def prepare_labels(self):
        mask_labels = torch.zeros(2, self.num_frames, self.height, self.width, device=torch_device)
        mask_labels[0, :, :16, :24] = 1
        mask_labels[1, :2, 8:, 32:] = 1
        class_labels = torch.tensor([0, 2], device=torch_device)
        return {"mask_labels": [mask_labels] * self.batch_size, "class_labels": [class_labels] * self.batch_size}


class VitaModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (VitaModel, VitaForVideoInstanceSegmentation)
    test_resize_embeddings = False  # there are no token embeddings
    _is_composite = True  # the backbone has a configuration of its own
    test_all_params_have_gradient = False  # Swin ends in a norm that the feature maps never pass

    def setUp(self):
        self.model_tester = VitaModelTester()
        self.config_tester = ConfigTester(self, config_class=VitaConfig, has_text_modality=False)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is VitaForVideoInstanceSegmentation:
            del inputs["frame_mask"]  # training takes clips of one length
            inputs |= self.model_tester.prepare_labels()
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_sdpa_can_dispatch_non_composite_models(self):
        # Holds here too, and its counterpart for composite models looks for a language model.
        self._is_composite = False
        super().test_sdpa_can_dispatch_non_composite_models()

    def test_model_outputs_equivalence(self):
        # The losses compare masks at random points; both calls of the test are to draw the same ones.
        def seed(module, _):
            if isinstance(module, VitaForVideoInstanceSegmentation):
                torch.manual_seed(0)

        self.addCleanup(register_module_forward_pre_hook(seed).remove)
        super().test_model_outputs_equivalence()

    @unittest.skip(reason="VITA has no token embeddings")
    def test_model_get_set_embeddings(self):
        pass


class VitaTimmModelTester(VitaModelTester):
    def get_backbone_config(self):
        return TimmBackboneConfig(backbone="test_resnet", out_indices=[1, 2, 3, 4])


class VitaTimmModelTest(VitaModelTest):
    """The same with a ResNet of timm, like the released R50 and R101 models."""

    test_all_params_have_gradient = True

    def setUp(self):
        super().setUp()
        self.model_tester = VitaTimmModelTester()

    def _set_subconfig_attributes(self, config, attribute_name, value):
        if attribute_name != "output_attentions":  # transformers' TimmBackbone refuses it
            super()._set_subconfig_attributes(config, attribute_name, value)
