"""Names of the original implementation's parameters and buffers → names in this package."""

import re

_PIXEL = "model.pixel_level_module"
_RESNET = f"{_PIXEL}.encoder._backbone"
_SWIN = f"{_PIXEL}.encoder.swin"
_FRAME = "model.transformer_module"

# (module's original prefix, prefix here, {original name: name here}). The rows are beginnings of names: the last word
# ("weight", "bias", …) is carried over. "*" stands for a number or a word, in the same order on both sides; "{qkv}" for
# q, k and v, which the original stacks along the first axis.
_MODULES: list[tuple[str, str, dict[str, str]]] = [
    ("backbone.stem.", f"{_RESNET}.", {"conv1.": "conv1.", "conv1.norm.": "bn1."}),
    *(
        (
            f"backbone.res{stage + 1}.",
            f"{_RESNET}.layer{stage}.",
            {
                "*.conv*.": "*.conv*.",
                "*.conv*.norm.": "*.bn*.",
                "*.shortcut.": "*.downsample.0.",
                "*.shortcut.norm.": "*.downsample.1.",
            },
        )
        for stage in (1, 2, 3, 4)
    ),
    (
        "backbone.patch_embed.",
        f"{_SWIN}.embeddings.",
        {"proj.": "patch_embeddings.projection.", "norm.": "norm."},
    ),
    (
        "backbone.layers.",
        f"{_SWIN}.encoder.layers.",
        {
            "*.blocks.*.norm1.": "*.blocks.*.layernorm_before.",
            "*.blocks.*.norm2.": "*.blocks.*.layernorm_after.",
            "*.blocks.*.attn.qkv.": "*.blocks.*.attention.{qkv}_proj.",
            "*.blocks.*.attn.proj.": "*.blocks.*.attention.o_proj.",
            "*.blocks.*.attn.": "*.blocks.*.attention.relative_position_bias.",
            "*.blocks.*.mlp.fc*.": "*.blocks.*.mlp.fc*.",
            "*.downsample.*.": "*.downsample.*.",
        },
    ),
    *(
        (f"backbone.norm{stage - 1}.", f"{_PIXEL}.encoder.hidden_states_norms.stage{stage}.", {"": ""})
        for stage in (1, 2, 3, 4)
    ),
    (
        "sem_seg_head.pixel_decoder.",
        f"{_PIXEL}.decoder.",
        {
            "transformer.": "",  # level_embed
            "input_proj.*.*.": "input_projections.*.*.",
            "transformer.encoder.layers.*.self_attn.*.": "encoder.layers.*.self_attn.*.",
            "transformer.encoder.layers.*.norm1.": "encoder.layers.*.self_attn_layer_norm.",
            "transformer.encoder.layers.*.linear*.": "encoder.layers.*.fc*.",
            "transformer.encoder.layers.*.norm2.": "encoder.layers.*.final_layer_norm.",
            "mask_features.": "mask_projection.",
            "adapter_*.": "adapter_*.0.",
            "adapter_*.norm.": "adapter_*.1.",
            "layer_*.": "layer_*.0.",
            "layer_*.norm.": "layer_*.1.",
        },
    ),
    ("sem_seg_head.predictor.class_embed.", "class_predictor.", {"": ""}),
    (
        "sem_seg_head.predictor.",
        f"{_FRAME}.",
        {
            "query_embed.": "queries_embedder.",
            "query_feat.": "queries_features.",
            "level_embed.": "level_embed.",
            "input_proj.*.": "input_projections.*.",
            "transformer_self_attention_layers.*.self_attn.in_proj_": "decoder.layers.*.self_attn.{qkv}_proj.",
            "transformer_self_attention_layers.*.self_attn.out_proj.": "decoder.layers.*.self_attn.out_proj.",
            "transformer_self_attention_layers.*.norm.": "decoder.layers.*.self_attn_layer_norm.",
            # transformers keeps torch's nn.MultiheadAttention here: in_proj_weight stays stacked.
            "transformer_cross_attention_layers.*.multihead_attn.": "decoder.layers.*.cross_attn.",
            "transformer_cross_attention_layers.*.multihead_attn.out_proj.": "decoder.layers.*.cross_attn.out_proj.",
            "transformer_cross_attention_layers.*.norm.": "decoder.layers.*.cross_attn_layer_norm.",
            "transformer_ffn_layers.*.linear*.": "decoder.layers.*.fc*.",
            "transformer_ffn_layers.*.norm.": "decoder.layers.*.final_layer_norm.",
            "decoder_norm.": "decoder.layernorm.",
            "mask_embed.layers.*.": "decoder.mask_predictor.mask_embedder.*.0.",
        },
    ),
    (
        "vita_module.enc_",
        "model.object_encoder.layers.",
        {
            "self_attn.*.self_attn.in_proj_": "*.self_attn.{qkv}_proj.",
            "self_attn.*.self_attn.out_proj.": "*.self_attn.out_proj.",
            "self_attn.*.norm.": "*.self_attn_layer_norm.",
            "ffn.*.linear*.": "*.fc*.",
            "ffn.*.norm.": "*.final_layer_norm.",
        },
    ),
    (
        "vita_module.",
        "model.object_decoder.",
        {
            "query_feat.": "queries_features.",
            "query_embed.": "queries_embedder.",
            "fq_pos.": "frame_queries_embedder.",
            "transformer_cross_attention_layers.*.multihead_attn.in_proj_": "layers.*.cross_attn.{qkv}_proj.",
            "transformer_cross_attention_layers.*.multihead_attn.out_proj.": "layers.*.cross_attn.out_proj.",
            "transformer_cross_attention_layers.*.norm.": "layers.*.cross_attn_layer_norm.",
            "transformer_self_attention_layers.*.self_attn.in_proj_": "layers.*.self_attn.{qkv}_proj.",
            "transformer_self_attention_layers.*.self_attn.out_proj.": "layers.*.self_attn.out_proj.",
            "transformer_self_attention_layers.*.norm.": "layers.*.self_attn_layer_norm.",
            "transformer_ffn_layers.*.linear*.": "layers.*.fc*.",
            "transformer_ffn_layers.*.norm.": "layers.*.final_layer_norm.",
            "decoder_norm.": "layernorm.",
        },
    ),
    (
        "vita_module.",
        "",
        {
            "vita_mask_features.": "model.video_mask_projection.",
            "input_proj_dec.": "model.object_encoder.input_projection.",
            "class_embed.": "video_class_predictor.",
            "mask_embed.layers.*.": "video_mask_embedder.*.0.",
            "sim_embed_frame.": "frame_similarity_embedder.",
            "sim_embed_clip.": "video_similarity_embedder.",
        },
    ),
]


# The checkpoints hold these, but the losses' class weights and Swin's indices follow from the configuration.
UNNEEDED = re.compile(r"(vita_)?criterion\.empty_weight|backbone\..*\.(relative_position_index|num_batches_tracked)")
# The checkpoints lack these: transformers' Swin ends in a norm that its backbone never uses.
UNUSED = re.compile(rf"{re.escape(_SWIN)}\.layernorm\.(weight|bias)")


def new_names(name: str) -> list[str]:
    """Translate an original name: into one name, into three for q, k and v stacked, or into none if it is unknown."""
    for pattern, template in _RULES:
        if match := pattern.fullmatch(name):
            *words, last_word = match.groups()
            letters = "qkv" if "{qkv}" in template else " "
            return [template.format(*words, qkv=letter) + last_word for letter in letters]
    return []


def _compile(original: str, name: str) -> tuple[re.Pattern, str]:
    return re.compile(re.escape(original).replace(r"\*", r"(\w+)") + r"(\w+)"), name.replace("*", "{}")


_RULES = [_compile(old + row, new + name) for old, new, rows in _MODULES for row, name in rows.items()]

__all__ = ["UNNEEDED", "UNUSED", "new_names"]
