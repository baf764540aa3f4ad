"""Images: where they come from and the pipeline that feeds training."""

from bdm_tf.data.downsampled import Downsampled
from bdm_tf.data.folder import ImageFolder
from bdm_tf.data.images import FileImages, Images, InMemoryImages
from bdm_tf.data.pipeline import to_uint8, to_unit_range, training_dataset
from bdm_tf.data.records import RecordImages
from bdm_tf.data.tfds_source import TFDSImages

__all__ = [
    "Downsampled",
    "FileImages",
    "ImageFolder",
    "Images",
    "InMemoryImages",
    "RecordImages",
    "TFDSImages",
    "to_uint8",
    "to_unit_range",
    "training_dataset",
]
