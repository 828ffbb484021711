"""Small models, each initialised as its authors recommend: what initlint must not complain about, and what to break.

Every builder takes a ``seed`` and returns (module, inputs). Builders leave the global random state alone.
"""

from .attention import adaln_zero, gpt, lora, mixture_of_experts, torch_encoder, vit
from .faults import HEALTHY, Fault, Healthy, plant
from .gated import highway, siren
from .initialised import Built, gpt2, he, seeded, xavier
from .normed import batchnorm_resnet, normed_cnn, rms_norm_mlp, weight_norm_mlp
from .plain import (
    gelu_mlp,
    mlp,
    relu_cnn,
    relu_mlp,
    selu_mlp,
    sigmoid_mlp,
    tanh_mlp,
    torch_default_mlp,
    zero_head,
)
from .recurrent import gru, identity_rnn, lstm
from .vision import (
    autoencoder,
    fixup,
    focal_prior,
    gan_generator,
    layer_scale,
    mobilenet,
    pixel_shuffle,
    re_zero,
    squeeze_excite,
    unet,
)

__all__ = [
    "HEALTHY",
    "Built",
    "Fault",
    "Healthy",
    "adaln_zero",
    "autoencoder",
    "batchnorm_resnet",
    "fixup",
    "focal_prior",
    "gan_generator",
    "gelu_mlp",
    "gpt",
    "gpt2",
    "gru",
    "he",
    "highway",
    "identity_rnn",
    "layer_scale",
    "lora",
    "lstm",
    "mixture_of_experts",
    "mlp",
    "mobilenet",
    "normed_cnn",
    "pixel_shuffle",
    "plant",
    "re_zero",
    "relu_cnn",
    "relu_mlp",
    "rms_norm_mlp",
    "seeded",
    "selu_mlp",
    "sigmoid_mlp",
    "siren",
    "squeeze_excite",
    "tanh_mlp",
    "torch_default_mlp",
    "torch_encoder",
    "unet",
    "vit",
    "weight_norm_mlp",
    "xavier",
    "zero_head",
]
