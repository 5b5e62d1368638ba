"""transformers' own tests of processors, on HCMIProcessor."""

import unittest
from unittest import mock

from tiny_hcmi import SIZE, tiny_tokenizer
from transformers import CLIPImageProcessor
from transformers_suite import load_common_tests

from hcmi.processing import HCMIProcessor

ProcessorTesterMixin = load_common_tests("test_processing_common").ProcessorTesterMixin


class HCMIProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = HCMIProcessor

    def setUp(self):
        super().setUp()
        # The suite compares saved files, and knows no processor that carries its code.
        patcher = mock.patch.object(HCMIProcessor, "_auto_class", None)
        patcher.start()
        self.addCleanup(patcher.stop)

    @classmethod
    def _setup_image_processor(cls):
        return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer()

    @staticmethod
    def prepare_processor_dict():
        return {"frames_per_video": 3}

    def get_subprocessor_name(self, modality, attributes):
        # Frames go through the settings of the image processor.
        return "image_processor" if modality == "videos" else super().get_subprocessor_name(modality, attributes)
