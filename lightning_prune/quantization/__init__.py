"""Networks that compute with rounded numbers."""

from lightning_prune.quantization.integer_layers import FrozenActivation, IntegerLayer, scaled
from lightning_prune.quantization.quantization_interceptor import QuantizationInterceptor, quantization_of
from lightning_prune.quantization.quantize import dequantize, quantize, release
from lightning_prune.quantization.quantizers.quantizer import Quantizer, UnsupportedBits

__all__ = [
    "FrozenActivation",
    "IntegerLayer",
    "QuantizationInterceptor",
    "Quantizer",
    "UnsupportedBits",
    "dequantize",
    "quantization_of",
    "quantize",
    "release",
    "scaled",
]
