"""The words of the framework-neutral model: what a layer computes, what a tensor is to it, where its output goes."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What a weighted operation computes."""

    LINEAR = "linear"
    CONV = "conv"
    CONV_TRANSPOSE = "conv-transpose"
    EMBEDDING = "embedding"
    LSTM = "lstm"
    GRU = "gru"
    RNN = "rnn"
    BATCH_NORM = "batch-norm"
    LAYER_NORM = "layer-norm"
    INSTANCE_NORM = "instance-norm"
    GROUP_NORM = "group-norm"
    RMS_NORM = "rms-norm"
    PRELU = "prelu"

    @property
    def is_norm(self) -> bool:
        return self in _NORMS

    @property
    def is_recurrent(self) -> bool:
        return self in _RECURRENT

    @property
    def is_map(self) -> bool:
        """A linear map with a fan-in: what initialisation schemes are written for."""
        return self in _MAPS


_NORMS = frozenset({Kind.BATCH_NORM, Kind.LAYER_NORM, Kind.INSTANCE_NORM, Kind.GROUP_NORM, Kind.RMS_NORM})
_RECURRENT = frozenset({Kind.LSTM, Kind.GRU, Kind.RNN})
_MAPS = frozenset({Kind.LINEAR, Kind.CONV, Kind.CONV_TRANSPOSE})


class Role(StrEnum):
    """What a tensor is to its layer."""

    WEIGHT = "weight"
    RECURRENT_WEIGHT = "recurrent-weight"
    BIAS = "bias"
    RECURRENT_BIAS = "recurrent-bias"
    TABLE = "table"
    GAIN = "gain"
    SHIFT = "shift"
    RUNNING_MEAN = "running-mean"
    RUNNING_VARIANCE = "running-variance"
    SLOPE = "slope"
    OTHER = "other"


class Use(StrEnum):
    """Where the output of a layer goes, seen through norms, non-linearities, reshapes and constant factors."""

    LAYER = "layer"
    """Another weighted linear map, table or recurrence reads it."""
    SUM = "sum"
    """It joins a live (input-dependent) operand in an addition: a residual branch, a shift, a skip."""
    PRODUCT = "product"
    """It multiplies a live operand: a gate, a scale, an attention logit or value."""
    SOFTMAX = "softmax"
    """It is normalised by a softmax, also after a product with another live tensor."""
    COORDINATE = "coordinate"
    """It is used as a coordinate, offset or index: GridSample, DeformConv, TopK, Gather."""
    OUTPUT = "output"
    """It leaves the graph."""


class Source(StrEnum):
    """What fed a layer last: the nearest producer of its input."""

    INPUT = "input"
    ACTIVATION = "activation"
    NORM = "norm"
    LAYER = "layer"
    SUM = "sum"
    PRODUCT = "product"
    MIXED = "mixed"
