"""A hold-out of architectures that nobody looked at while initlint was built: as their libraries initialise them.

Other families than those of ``zoo.py``, and models whole, with all their inputs and outputs: encoder with decoder,
detection, segmentation, diffusion, speech, time series, graphs, generators, normalising flows. Nothing is downloaded.

Needs ``transformers torchvision timm diffusers segmentation-models-pytorch``; of what is missing, ``available`` leaves
out the architectures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from written_out import WRITTEN_OUT
from zoo import GPT_NAMES, GROUPED, IMAGE, SPECIAL, SPEECH, T5, TEXT, WHISPER, Architecture, Built

Inputs = Callable[[], dict[str, Any]]

# Hugging Face transformers, whole: mappings in, mappings out


def _hf(name: str, model: str, inputs: Inputs, options: dict[str, Any]) -> Built:
    import transformers

    config = transformers.AutoConfig.for_model(name, **options)
    kind = getattr(transformers, model)
    return kind.from_config(config) if model.startswith("AutoModel") else kind(config), inputs()


def _tokens(length: int = 16, high: int = 120) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(3, high, (4, length))}


def _pairs() -> dict[str, Tensor]:
    return {**_tokens(), "decoder_input_ids": torch.randint(3, 120, (4, 12))}


def _picture(side: int = 32, channels: int = 3) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(4, channels, side, side)}


def _both(side: int = 32) -> dict[str, Tensor]:
    return {**_tokens(), **_picture(side)}


def _video() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 4, 3, 32, 32)}


def _sound() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 4000)}


def _mel_and_text() -> dict[str, Tensor]:
    return {"input_features": torch.randn(2, 16, 128), "decoder_input_ids": torch.randint(3, 120, (2, 12))}


def _codec() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 1, 3200)}


def _patchable() -> dict[str, Tensor]:
    return {"past_values": torch.randn(4, 64, 3)}


def _history() -> dict[str, Tensor]:
    return {
        "past_values": torch.randn(4, 31),
        "past_time_features": torch.randn(4, 31, 1),
        "past_observed_mask": torch.ones(4, 31),
        "future_values": torch.randn(4, 8),
        "future_time_features": torch.randn(4, 8, 1),
    }


def _trajectory() -> dict[str, Tensor]:
    return {
        "states": torch.randn(4, 8, 17),
        "actions": torch.randn(4, 8, 4),
        "rewards": torch.randn(4, 8, 1),
        "returns_to_go": torch.randn(4, 8, 1),
        "timesteps": torch.arange(8).expand(4, 8),
        "attention_mask": torch.ones(4, 8),
    }


def _t(name: str, model: str, inputs: Inputs, **options: Any) -> Architecture:
    return Architecture("transformers", name, partial(_hf, name, model, inputs, options))


def _lm(name: str, **options: Any) -> Architecture:
    return _t(name, "AutoModelForCausalLM", _tokens, **{**TEXT, **options})


def _text(name: str, model: str = "AutoModelForMaskedLM", **options: Any) -> Architecture:
    return _t(name, model, _tokens, **{**TEXT, **options})


def _vision(name: str, model: str = "AutoModelForImageClassification", side: int = 32, **options: Any) -> Architecture:
    return _t(name, model, partial(_picture, side), **options)


SEQ2SEQ = {key: value for key, value in WHISPER.items() if key not in ("num_mel_bins", "max_source_positions")}
SEQ2SEQ["decoder_layers"] = 2
MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
TWO_TOWERS = {
    "text_config": {**TEXT, "projection_dim": 32},
    "vision_config": {**IMAGE, "projection_dim": 32},
    "projection_dim": 32,
}
XL = {"vocab_size": 120, "d_model": 64, "n_layer": 3, "n_head": 4, "d_inner": 128}
TIMES = {
    "prediction_length": 8,
    "context_length": 24,
    "lags_sequence": [1, 2, 7],
    "num_time_features": 1,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
}

TRANSFORMERS = (
    _lm("mamba2", state_size=16, num_heads=8, head_dim=16, n_groups=1, chunk_size=8),
    _lm("falcon_mamba", state_size=8),
    _lm("rwkv", attention_hidden_size=64, context_length=64),
    _lm("gpt_oss", **GROUPED, head_dim=16, num_local_experts=4, num_experts_per_tok=2),
    _lm("qwen2_moe", **GROUPED, **MOE, shared_expert_intermediate_size=32),
    _lm("qwen3", **GROUPED, head_dim=16),
    _lm("qwen3_moe", **GROUPED, **MOE, head_dim=16),
    _lm("deepseek_v3", **LATENT, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, n_group=1,
        topk_group=1, first_k_dense_replace=1),
    _lm("jamba", **GROUPED, num_experts=4, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=1, use_mamba_kernels=False, mamba_d_state=8),
    _lm("recurrent_gemma", **GROUPED, lru_width=64, block_types=["recurrent", "recurrent", "attention"]),
    _lm("falcon"),
    _lm("olmo2", **GROUPED),
    _lm("cohere", **GROUPED),
    _lm("starcoder2", **GROUPED),
    _lm("phi3", **GROUPED),
    _lm("stablelm", **GROUPED),
    _lm("nemotron", **GROUPED),
    _lm("granite", **GROUPED),
    _lm("gemma2", **GROUPED, head_dim=16),
    _t("gpt_neo", "AutoModelForCausalLM", _tokens, **SPECIAL, vocab_size=120, hidden_size=64, num_layers=2, num_heads=4,
       attention_types=[[["global", "local"], 1]], max_position_embeddings=64),
    _t("gpt_bigcode", "AutoModelForCausalLM", _tokens, **SPECIAL, **GPT_NAMES),
    _t("codegen", "AutoModelForCausalLM", _tokens, **SPECIAL, **GPT_NAMES, rotary_dim=8),
    _t("xglm", "AutoModelForCausalLM", _tokens, **SPECIAL, vocab_size=120, d_model=64, ffn_dim=128, num_layers=3,
       attention_heads=4),
    _t("ctrl", "AutoModel", _tokens, vocab_size=120, n_embd=64, n_layer=3, n_head=4, dff=128, n_positions=64),
    _t("xlnet", "AutoModel", _tokens, **XL),
    _text("fnet", tpu_short_seq_length=16, type_vocab_size=2),
    _t("funnel", "FunnelModel", _tokens, vocab_size=120, block_sizes=[1, 1], d_model=64, n_head=4, d_head=16,
       d_inner=128),
    _text("longformer", attention_window=8),
    _text("big_bird", attention_type="original_full"),
    _text("reformer", "ReformerModel", attn_layers=["local", "lsh"], local_attn_chunk_length=8, lsh_attn_chunk_length=8,
          num_buckets=4, axial_pos_embds=False, attention_head_size=16, feed_forward_size=128, is_decoder=False,
          num_hidden_layers=2),
    _text("nystromformer", num_landmarks=4, segment_means_seq_len=16, conv_kernel_size=5),
    _text("yoso", use_expectation=True),
    _text("convbert", embedding_size=64),
    _text("squeezebert", embedding_size=64),
    _text("mpnet"),
    _text("esm", mask_token_id=3, position_embedding_type="rotary"),
    _text("roformer", embedding_size=64),
    _text("layoutlm"),
    _text("ibert"),
    _text("modernbert", "AutoModelForSequenceClassification", cls_token_id=1, sep_token_id=2),
    _text("canine", "AutoModel", downsampling_rate=4, upsampling_kernel_size=4, local_transformer_stride=8,
          num_hash_buckets=32),
    _t("bart", "AutoModelForSeq2SeqLM", _pairs, **SEQ2SEQ, max_position_embeddings=64),
    _t("pegasus", "AutoModelForSeq2SeqLM", _pairs, **SEQ2SEQ, max_position_embeddings=64),
    _t("m2m_100", "AutoModelForSeq2SeqLM", _pairs, **SEQ2SEQ, max_position_embeddings=64),
    _t("led", "AutoModelForSeq2SeqLM", _pairs, **SEQ2SEQ, attention_window=8, max_encoder_position_embeddings=64,
       max_decoder_position_embeddings=64),
    _t("prophetnet", "AutoModelForSeq2SeqLM", _pairs, **SPECIAL, vocab_size=120, hidden_size=64, num_encoder_layers=2,
       num_decoder_layers=2, num_encoder_attention_heads=4, num_decoder_attention_heads=4, encoder_ffn_dim=128,
       decoder_ffn_dim=128, max_position_embeddings=64, decoder_start_token_id=1),
    _t("t5", "AutoModelForSeq2SeqLM", _pairs, **T5, decoder_start_token_id=0),
    _t("umt5", "AutoModelForSeq2SeqLM", _pairs, **T5, decoder_start_token_id=0),
    _t("switch_transformers", "AutoModelForSeq2SeqLM", _pairs, **T5, num_experts=4, decoder_start_token_id=0),
    _t("whisper", "AutoModelForSpeechSeq2Seq", _mel_and_text, **{**WHISPER, "decoder_layers": 2}),
    _t("wavlm", "AutoModelForCTC", _sound, **SPEECH),
    _t("unispeech", "AutoModelForCTC", _sound, **SPEECH),
    _t("sew-d", "AutoModel", _sound, **SPEECH, squeeze_factor=2),
    _t("data2vec-audio", "AutoModel", _sound, **SPEECH),
    _t("audio-spectrogram-transformer", "AutoModelForAudioClassification",
       lambda: {"input_values": torch.randn(2, 64, 32)}, **{**IMAGE, "patch_size": 8}, max_length=64, num_mel_bins=32),
    _t("encodec", "EncodecModel", _codec, num_filters=4, hidden_size=32, codebook_dim=32, upsampling_ratios=[4, 2],
       num_lstm_layers=1, codebook_size=16),
    _t("dac", "DacModel", _codec, encoder_hidden_size=8, decoder_hidden_size=32, downsampling_ratios=[2, 4],
       upsampling_ratios=[4, 2], n_codebooks=2, codebook_size=16, codebook_dim=4),
    _t("univnet", "UnivNetModel", lambda: {"input_features": torch.randn(2, 16, 100)}, model_hidden_channels=8),
    _t("vits", "VitsModel", _tokens, vocab_size=120, hidden_size=32, ffn_dim=64, num_hidden_layers=2,
       num_attention_heads=2, flow_size=32, spectrogram_bins=33, upsample_initial_channel=32, num_flows=2,
       posterior_encoder_num_wavenet_layers=2, prior_encoder_num_wavenet_layers=2),
    _t("clip", "CLIPModel", _both, **TWO_TOWERS),
    _t("siglip", "SiglipModel", _both, **TWO_TOWERS),
    _t("blip", "BlipModel", _both, **TWO_TOWERS),
    _t("vilt", "ViltModel", _both, **{**TEXT, **IMAGE}),
    _t("perceiver", "PerceiverForMaskedLM", lambda: {"inputs": torch.randint(3, 120, (4, 16))}, vocab_size=120,
       d_model=32, d_latents=32, num_latents=8, num_self_attends_per_block=2, num_self_attention_heads=4,
       num_cross_attention_heads=4, max_position_embeddings=64),
    _vision("deit", "DeiTForImageClassification", **IMAGE),
    _vision("vit_mae", "ViTMAEForPreTraining", **IMAGE, decoder_hidden_size=32, decoder_num_hidden_layers=2,
            decoder_num_attention_heads=4, decoder_intermediate_size=64),
    _vision("ijepa", **IMAGE),
    _vision("dinov3_vit", "AutoModel", **IMAGE),
    _vision("swinv2", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1, 2], num_heads=[2, 2, 4], window_size=4),
    _vision("bit", embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], num_groups=8, side=64),
    _vision("regnet", embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], groups_width=16, side=64),
    _vision("levit", "LevitForImageClassification", side=64, image_size=64, hidden_sizes=[32, 48, 64],
            num_attention_heads=[2, 3, 4],
            depths=[1, 1, 1],
            key_dim=[8, 8, 8]),
    _vision("cvt", side=64, embed_dim=[16, 32, 64], num_heads=[1, 2, 4], depth=[1, 2, 10]),
    _vision("pvt_v2", side=64, image_size=64, hidden_sizes=[16, 32, 48, 64], num_attention_heads=[1, 2, 3, 4]),
    _vision("focalnet", image_size=32, patch_size=4, embed_dim=16, hidden_sizes=[32, 64], depths=[1, 1],
            focal_levels=[2, 2], focal_windows=[3, 3]),
    _vision("swiftformer", side=64, depths=[1, 1, 1, 1], embed_dims=[16, 24, 32, 48]),
    _vision("mobilenet_v1", side=64, depth_multiplier=0.25),
    _vision("mobilevitv2", side=64, image_size=64, width_multiplier=0.5),
    _vision("hiera", side=64, image_size=[64, 64], embed_dim=16, depths=[1, 1], num_heads=[1, 2],
            mlp_ratio=2.0, query_stride=[2, 2], masked_unit_size=[8, 8], num_query_pool=1),
    _vision("upernet", "UperNetForSemanticSegmentation", side=64, hidden_size=32, auxiliary_in_channels=48,
            backbone_config={"model_type": "convnext", "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1],
                             "out_features": ["stage1", "stage2", "stage3", "stage4"]}),
    _vision("glpn", "GLPNForDepthEstimation", side=64, num_attention_heads=[1, 2, 3, 4],
            hidden_sizes=[16, 32, 48, 64], decoder_hidden_size=32),
    _vision("yolos", "YolosForObjectDetection", **{**IMAGE, "image_size": [32, 32]}, num_detection_tokens=4),
    _vision("detr", "DetrForObjectDetection", side=64, use_timm_backbone=False, use_pretrained_backbone=False,
            backbone=None, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=6,
            backbone_config={"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 48, 64],
                             "depths": [1, 1, 1, 1], "out_features": ["stage4"]}),
    _vision("swin2sr", "Swin2SRForImageSuperResolution", image_size=32, embed_dim=24, depths=[2, 2], num_heads=[2, 2],
            window_size=4),
    _t("timesformer", "TimesformerForVideoClassification", _video, **IMAGE, num_frames=4),
    _t("videomae", "VideoMAEForVideoClassification", _video, **IMAGE, num_frames=4),
    _t("vivit", "VivitForVideoClassification", _video, **IMAGE, num_frames=4, tubelet_size=[2, 8, 8]),
    _t("patchtst", "PatchTSTForPrediction", _patchable, num_input_channels=3, context_length=64, patch_length=8,
       patch_stride=8, d_model=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, prediction_length=8),
    _t("patchtsmixer", "PatchTSMixerForPrediction", _patchable, num_input_channels=3, context_length=64, patch_length=8,
       patch_stride=8, d_model=16, num_layers=2, prediction_length=8),
    _t("time_series_transformer", "TimeSeriesTransformerModel", _history, **TIMES),
    _t("informer", "InformerModel", _history, **TIMES),
    _t("autoformer", "AutoformerModel", _history, **TIMES, label_length=4, moving_average=5),
    _t("decision_transformer", "DecisionTransformerModel", _trajectory, hidden_size=64, n_layer=2, n_head=4),
)  # fmt: skip

# torchvision and timm


def _torchvision(path: str, inputs: Callable[[], Any], options: dict[str, Any]) -> Built:
    module, _, name = path.rpartition(".")
    owner = import_module(f"torchvision.models.{module}" if module else "torchvision.models")
    return getattr(owner, name)(weights=None, **options), inputs()


def _pixels(side: int = 96, batch: int = 2) -> tuple[Tensor]:
    return (torch.randn(batch, 3, side, side),)


def _tv(path: str, side: int = 96, **options: Any) -> Architecture:
    name = path.rpartition(".")[2]
    return Architecture("torchvision", name, partial(_torchvision, path, partial(_pixels, side), options))


def _clip() -> tuple[Tensor]:
    return (torch.randn(2, 3, 4, 48, 48),)


NO_BACKBONE = {"weights_backbone": None}

TORCHVISION = (
    _tv("googlenet", init_weights=True),
    _tv("inception_v3", side=128, init_weights=True),
    _tv("mobilenet_v3_large"),
    _tv("efficientnet_b1"),
    _tv("convnext_tiny"),
    _tv("swin_t"),
    _tv("swin_v2_t", side=64),
    _tv("maxvit_t", side=224),
    _tv("shufflenet_v2_x0_5"),
    _tv("mnasnet0_5"),
    _tv("squeezenet1_0"),
    _tv("regnet_y_400mf"),
    _tv("vgg11_bn", side=64),
    _tv("segmentation.deeplabv3_mobilenet_v3_large", **NO_BACKBONE),
    _tv("segmentation.lraspp_mobilenet_v3_large", **NO_BACKBONE),
    _tv("segmentation.fcn_resnet50", side=64, **NO_BACKBONE),
    Architecture("torchvision", "r3d_18", partial(_torchvision, "video.r3d_18", _clip, {})),
    Architecture("torchvision", "r2plus1d_18", partial(_torchvision, "video.r2plus1d_18", _clip, {})),
    Architecture(
        "torchvision",
        "raft_small",
        partial(_torchvision, "optical_flow.raft_small", lambda: (*_pixels(128), *_pixels(128)), {}),
    ),
)


def _timm(name: str, side: int | None, options: dict[str, Any]) -> Built:
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=10, **options)
    side = side or model.default_cfg["input_size"][-1]
    return model, (torch.randn(2, 3, side, side),)


def _tm(name: str, side: int | None = None, **options: Any) -> Architecture:
    return Architecture("timm", name, partial(_timm, name, side, options))


TIMM = (
    _tm("resmlp_12_224"),
    _tm("mixer_s32_224"),
    _tm("gmlp_ti16_224"),
    _tm("coatnet_nano_rw_224"),
    _tm("edgenext_xx_small", 128),
    _tm("efficientformer_l1"),
    _tm("efficientvit_b0", 128),
    _tm("fastvit_t8", 128),
    _tm("ghostnet_050", 128),
    _tm("hrnet_w18_small", 128),
    _tm("mobileone_s0", 128),
    _tm("nfnet_l0", 128),
    _tm("eca_nfnet_l0", 128),
    _tm("repvgg_a0", 128),
    _tm("rexnet_100", 128),
    _tm("tiny_vit_5m_224"),
    _tm("twins_pcpvt_small"),
    _tm("xcit_nano_12_p16_224"),
    _tm("pit_ti_224"),
    _tm("deit_tiny_patch16_224"),
    _tm("cait_xxs24_224"),
    _tm("crossvit_tiny_240"),
    _tm("visformer_tiny"),
    _tm("botnet26t_256"),
    _tm("halonet26t", 256),
    _tm("lambda_resnet26t", 256),
    _tm("dla34", 128),
    _tm("inception_next_tiny", 128),
    _tm("caformer_s18", 128),
    _tm("resnetv2_50", 128),
    _tm("resnest14d", 128),
    _tm("skresnet18", 128),
    _tm("starnet_s1", 128),
    _tm("eva02_tiny_patch14_224"),
    _tm("mvitv2_tiny"),
    _tm("davit_tiny"),
    _tm("vovnet39a", 128),
    _tm("volo_d1_224"),
    _tm("sequencer2d_s"),
    _tm("tresnet_m", 128),
)

# diffusers, segmentation_models_pytorch


def _diffusers(kind: str, inputs: Inputs, options: dict[str, Any]) -> Built:
    import diffusers

    return getattr(diffusers, kind)(**options), inputs()


def _noisy(channels: int = 3, side: int = 16, time: str = "timestep", **more: Tensor) -> dict[str, Any]:
    return {"sample": torch.randn(2, channels, side, side), time: torch.tensor([10, 500]), **more}


def _conditioned() -> dict[str, Any]:
    return {**_noisy(4), "encoder_hidden_states": torch.randn(2, 8, 32)}


def _controlled() -> dict[str, Any]:
    return {**_conditioned(), "controlnet_cond": torch.randn(2, 3, 128, 128)}


def _labelled() -> dict[str, Any]:
    return {"hidden_states": torch.randn(2, 4, 16, 16), "timestep": torch.tensor([10, 500]),
            "class_labels": torch.tensor([1, 2])}  # fmt: skip


def _d(name: str, kind: str, inputs: Inputs, **options: Any) -> Architecture:
    return Architecture("diffusers", name, partial(_diffusers, kind, inputs, options))


LEVELS = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
UP_DOWN = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
CROSS = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "cross_attention_dim": 32}
CODERS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}

DIFFUSERS = (
    _d("unet2d", "UNet2DModel", _noisy, **LEVELS, **UP_DOWN, attention_head_dim=8),
    _d("unet2d-condition", "UNet2DConditionModel", _conditioned, **LEVELS, **CROSS,
       up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=8),
    _d("controlnet", "ControlNetModel", _controlled, **LEVELS, **CROSS, attention_head_dim=8),
    _d("autoencoder-kl", "AutoencoderKL", lambda: {"sample": torch.randn(2, 3, 32, 32)}, **LEVELS, **CODERS),
    _d("vq-model", "VQModel", lambda: {"sample": torch.randn(2, 3, 32, 32)}, **LEVELS, **CODERS, num_vq_embeddings=16),
    _d("dit", "DiTTransformer2DModel", _labelled, num_attention_heads=4, attention_head_dim=16, num_layers=2,
       sample_size=16, num_embeds_ada_norm=10, norm_num_groups=8),
)  # fmt: skip


def _smp(kind: str) -> Built:
    import segmentation_models_pytorch as smp

    return getattr(smp, kind)("resnet18", encoder_weights=None, classes=3), (torch.randn(2, 3, 128, 128),)


SEGMENTATION = tuple(
    Architecture("segmentation-models", kind, partial(_smp, kind))
    for kind in ("Unet", "UnetPlusPlus", "FPN", "PSPNet", "Linknet", "MAnet", "DeepLabV3Plus", "PAN")
)


MORE = (*WRITTEN_OUT, *DIFFUSERS, *SEGMENTATION, *TRANSFORMERS, *TORCHVISION, *TIMM)

_PACKAGES = {"segmentation-models": "segmentation_models_pytorch", "written-out": "torch"}


def available() -> tuple[Architecture, ...]:
    """Those whose library is installed."""
    found = {library: find_spec(_PACKAGES.get(library, library)) for library in {each.library for each in MORE}}
    return tuple(each for each in MORE if found[each.library] is not None)
