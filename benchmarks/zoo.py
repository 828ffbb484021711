"""Architectures as their libraries initialise them, small where a configuration allows it.

Nothing is downloaded: every model is built from a configuration and the library's own random initialisation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, Any]


@dataclass(frozen=True)
class Architecture:
    library: str
    name: str
    construct: Callable[[], Built]

    @property
    def title(self) -> str:
        return f"{self.library}-{self.name}"

    def build(self, seed: int = 0) -> Built:
        """(module, inputs); the global random state stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.construct()


TEXT = {
    "vocab_size": 120,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IMAGE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}
GPT_NAMES = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "n_inner": 128, "vocab_size": 120}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _tokens(high: int = 120) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(3, high, (4, 16))}


def _image(side: int = 32) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(4, 3, side, side)}


def _sound() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 4000)}


def _mel() -> dict[str, Tensor]:
    return {"input_features": torch.randn(2, 16, 128)}


class FirstOutput(nn.Module):
    """A Hugging Face model as exporters want it: one tensor in, one tensor out.

    With ``masked`` a mask of ones is handed over: without one, decoders look for packed sequences, by an operator that
    the legacy exporter does not know.
    """

    def __init__(self, model: nn.Module, keyword: str, masked: bool) -> None:
        super().__init__()
        self.model, self.keyword, self.masked = model, keyword, masked

    def forward(self, values: Tensor) -> Tensor:
        arguments = {self.keyword: values}
        if self.masked:
            arguments["attention_mask"] = torch.ones_like(values)
        return self.model(**arguments)[0]


def _transformers(
    name: str, model: str, inputs: Callable[[], dict[str, Tensor]], options: dict[str, Any], part: str = ""
) -> Built:
    """``model`` is the Auto class or a class of its own; ``part`` picks a submodule such as the encoder."""
    import transformers

    config = transformers.AutoConfig.for_model(name, **options)
    if getattr(config, "use_cache", False):
        config.use_cache = False
    kind = getattr(transformers, model)
    module = kind.from_config(config) if model.startswith("Auto") else kind(config)
    ((keyword, values),) = inputs().items()
    masked = model == "AutoModelForCausalLM"
    return FirstOutput(module.get_submodule(part) if part else module, keyword, masked), (values,)


def _pytorchcv(module: str, name: str, side: int = 224, batch: int = 4, **options: Any) -> Built:
    """Not by ``pytorchcv.model_provider``: that imports every model, and one of them torchvision."""
    construct = getattr(import_module(f"pytorchcv.models.{module}"), name)
    return construct(pretrained=False, **options), (torch.randn(batch, 3, side, side),)


def _narrow_vgg(use_bn: bool) -> Built:
    """VGG-11 with an eighth of the channels: at full width its first dense layer alone has 400 MB."""
    from pytorchcv.models.vgg import VGG

    return VGG([[8], [16], [32, 32], [64, 64], [64, 64]], use_bn=use_bn), (torch.randn(4, 3, 224, 224),)


def _vit_pytorch(module: str, kind: str, side: int = 32, **options: Any) -> Built:
    model = getattr(_submodule("vit_pytorch", module), kind)(**options)
    return model, (torch.randn(4, 3, side, side),)


def _submodule(package: str, name: str) -> ModuleType:
    """A module of a package whose ``__init__`` imports more than there may be (torchvision): that is passed over."""
    if package not in sys.modules:
        spec = find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"no module named {package!r}", name=package)
        bare = ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[package] = bare
    return import_module(f"{package}.{name}")


def _x_transformers(layers: str, **options: Any) -> Built:
    import x_transformers

    stack = getattr(x_transformers, layers)(dim=64, depth=3, heads=4, attn_dim_head=16, **options)
    model = x_transformers.TransformerWrapper(num_tokens=120, max_seq_len=64, attn_layers=stack)
    return model, (torch.randint(120, (4, 16)),)


def _text(name: str, model: str = "AutoModel", **options: Any) -> Architecture:
    return Architecture("transformers", name, partial(_transformers, name, model, _tokens, {**TEXT, **options}))


def _gpt(name: str, model: str = "AutoModelForCausalLM", **options: Any) -> Architecture:
    construct = partial(_transformers, name, model, _tokens, {**SPECIAL, **options})
    return Architecture("transformers", name, construct)


def _vision(name: str, model: str = "AutoModelForImageClassification", side: int = 32, **options: Any) -> Architecture:
    return Architecture("transformers", name, partial(_transformers, name, model, partial(_image, side), options))


def _cv(module: str, name: str, **options: Any) -> Architecture:
    return Architecture("pytorchcv", name, partial(_pytorchcv, module, name, **options))


def _vp(module: str, kind: str, **options: Any) -> Architecture:
    return Architecture("vit-pytorch", module, partial(_vit_pytorch, module, kind, **options))


def _xt(name: str, layers: str, **options: Any) -> Architecture:
    return Architecture("x-transformers", name, partial(_x_transformers, layers, **options))


GROUPED = {"num_key_value_heads": 2}
SPEECH = {
    **TEXT,
    "conv_dim": (32, 32, 32),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WHISPER = {
    **SPECIAL,
    "vocab_size": 120,
    "d_model": 64,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_mel_bins": 16,
    "max_source_positions": 64,
    "decoder_start_token_id": 1,
}
T5 = {"vocab_size": 120, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}
PATCHES = {"image_size": 32, "patch_size": 8, "dim": 64, "mlp_dim": 128, "num_classes": 10}

ZOO = (
    _text("bert", "AutoModelForSequenceClassification"),
    _text("roberta"),
    _text("electra", embedding_size=64),
    _text("albert", embedding_size=32),
    _text("deberta-v2"),
    _gpt("distilbert", "AutoModel", vocab_size=120, dim=64, n_layers=3, n_heads=4, hidden_dim=128),
    _gpt("gpt2", **GPT_NAMES),
    _gpt("gptj", **GPT_NAMES, rotary_dim=8),
    _text("gpt_neox", "AutoModelForCausalLM"),
    _gpt("opt", vocab_size=120, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, ffn_dim=128),
    _gpt("bloom", vocab_size=120, hidden_size=64, n_layer=3, n_head=4),
    _text("llama", "AutoModelForCausalLM", **GROUPED),
    _text("mistral", "AutoModelForCausalLM", **GROUPED),
    _text("qwen2", "AutoModelForCausalLM", **GROUPED),
    _text("gemma", "AutoModelForCausalLM", **GROUPED, head_dim=16),
    _text("phi", "AutoModelForCausalLM"),
    _text("mixtral", "AutoModelForCausalLM", **GROUPED, num_local_experts=4, experts_implementation="eager"),
    Architecture("transformers", "t5-encoder", partial(_transformers, "t5", "T5EncoderModel", _tokens, T5)),
    _text("mamba", "AutoModelForCausalLM", state_size=8),
    _vision("vit", **IMAGE),
    _vision("beit", **IMAGE),
    _vision("dinov2", **IMAGE),
    _vision("swin", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1, 2], num_heads=[2, 2, 4], window_size=4),
    _vision("convnext", depths=[2, 2, 2, 2], hidden_sizes=[16, 32, 48, 64], side=64),
    _vision("convnextv2", depths=[2, 2, 2, 2], hidden_sizes=[16, 32, 48, 64], side=64),
    _vision("resnet", embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], side=64),
    _vision("mobilenet_v2", side=64),
    _vision("mobilevit", side=64, image_size=64),
    _vision("segformer", hidden_sizes=[16, 32, 48, 64], side=64),
    _vision("poolformer", hidden_sizes=[16, 32, 48, 64], side=64),
    Architecture(
        "transformers",
        "whisper-encoder",
        partial(_transformers, "whisper", "AutoModel", _mel, WHISPER, "encoder"),
    ),
    Architecture("transformers", "wav2vec2", partial(_transformers, "wav2vec2", "AutoModel", _sound, SPEECH)),
    Architecture("transformers", "hubert", partial(_transformers, "hubert", "AutoModel", _sound, SPEECH)),
    Architecture("pytorchcv", "narrow-vgg11", partial(_narrow_vgg, False)),
    Architecture("pytorchcv", "narrow-bn-vgg11", partial(_narrow_vgg, True)),
    _cv("alexnet", "alexnet"),
    _cv("resnet", "resnet18"),
    _cv("preresnet", "preresnet18"),
    _cv("seresnet", "seresnet18"),
    _cv("senet", "senet16"),
    _cv("resnext", "resnext26_32x4d"),
    _cv("densenet", "densenet121"),
    _cv("squeezenet", "squeezenet_v1_1"),
    _cv("shufflenetv2", "shufflenetv2_wd2"),
    _cv("mobilenet", "mobilenet_w1"),
    _cv("mobilenetv2", "mobilenetv2_w1"),
    _cv("mobilenetv3", "mobilenetv3_small_w1"),
    _cv("mnasnet", "mnasnet_b1"),
    _cv("efficientnet", "efficientnet_b0"),
    _cv("regnet", "regnetx004"),
    _cv("darknet", "darknet_ref"),
    _cv("peleenet", "peleenet"),
    _cv("hardnet", "hardnet39ds"),
    _vp("vit", "ViT", **PATCHES, depth=3, heads=4),
    _vp("simple_vit", "SimpleViT", **PATCHES, depth=3, heads=4),
    _vp("cait", "CaiT", **PATCHES, depth=3, cls_depth=2, heads=4),
    _vp("deepvit", "DeepViT", **PATCHES, depth=3, heads=4),
    _vp("cct", "CCT", img_size=32, embedding_dim=64, num_layers=3, num_heads=4, mlp_ratio=2, num_classes=10),
    _vp("mobile_vit", "MobileViT", side=64, image_size=(64, 64), dims=[32, 48, 64], channels=[8] * 11, num_classes=10),
    _vp("max_vit", "MaxViT", side=56, num_classes=10, dim=16, depth=(1, 1), window_size=7, dim_head=8),
    _xt("decoder", "Decoder"),
    _xt("encoder", "Encoder"),
    _xt("modern-decoder", "Decoder", rotary_pos_emb=True, use_rmsnorm=True, ff_glu=True, ff_swish=True),
    _xt("scalenorm-encoder", "Encoder", use_scalenorm=True),
)
