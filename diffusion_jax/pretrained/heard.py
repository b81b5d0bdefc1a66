"""Which names in a config a class of diffusers or transformers listens to: it drops what is of other classes.

Configs keep the values of all classes that a scheduler was changed from and to, and of what wrote them, averages of
weights say. Only a name that is known to be of another kind is dropped; one that nobody knows stays refused.
"""


def _named(*parts: str) -> frozenset[str]:
    return frozenset(" ".join(parts).split())


_TABLE = "num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type"
_SPACED = f"{_TABLE} timestep_spacing steps_offset"
_SNR = "rescale_betas_zero_snr"
_THRESHOLD = "thresholding dynamic_thresholding_ratio sample_max_value"
_CLIP = "clip_sample clip_sample_range"
_CURVES = "use_karras_sigmas use_exponential_sigmas use_beta_sigmas"
_FLOW = "use_flow_sigmas flow_shift use_dynamic_shifting time_shift_type"
_SOLVER = f"{_TABLE} {_THRESHOLD} {_CURVES} {_FLOW} solver_order solver_type lower_order_final"
_DPM = f"{_SOLVER} algorithm_type final_sigmas_type lambda_min_clipped variance_type"

SCHEDULERS = {
    "DDPMScheduler": _named(_SPACED, _SNR, _THRESHOLD, _CLIP, "variance_type"),
    "UnCLIPScheduler": _named("num_train_timesteps beta_schedule prediction_type variance_type", _CLIP),
    "DDIMScheduler": _named(_SPACED, _SNR, _THRESHOLD, _CLIP, "set_alpha_to_one"),
    "PNDMScheduler": _named(_SPACED, "skip_prk_steps set_alpha_to_one"),
    "EulerDiscreteScheduler": _named(
        _SPACED, _SNR, _CURVES, "interpolation_type sigma_min sigma_max timestep_type final_sigmas_type"
    ),
    "EulerAncestralDiscreteScheduler": _named(_SPACED, _SNR),
    "HeunDiscreteScheduler": _named(_SPACED, _CURVES, _CLIP),
    "LMSDiscreteScheduler": _named(_SPACED, _CURVES),
    "KDPM2DiscreteScheduler": _named(_SPACED, _CURVES),
    "KDPM2AncestralDiscreteScheduler": _named(_SPACED, _CURVES),
    "DPMSolverSDEScheduler": _named(_SPACED, _CURVES, "noise_sampler_seed"),
    "DPMSolverMultistepScheduler": _named(_SPACED, _SNR, _DPM, "euler_at_final use_lu_lambdas"),
    "DPMSolverSinglestepScheduler": _named(_DPM),
    "UniPCMultistepScheduler": _named(
        _SPACED,
        _SNR,
        _SOLVER,
        "final_sigmas_type predict_x0 disable_corrector solver_p sigma_min sigma_max shift_terminal",
    ),
    "DEISMultistepScheduler": _named(_SPACED, _SOLVER, "algorithm_type"),
    "FlowMatchEulerDiscreteScheduler": _named(
        "num_train_timesteps shift use_dynamic_shifting base_shift max_shift base_image_seq_len max_image_seq_len",
        _CURVES,
        "invert_sigmas shift_terminal time_shift_type stochastic_sampling",
    ),
    "CMStochasticIterativeScheduler": _named(
        "num_train_timesteps sigma_min sigma_max sigma_data s_noise rho clip_denoised"
    ),
    "LCMScheduler": _named(
        _SPACED, _SNR, _THRESHOLD, _CLIP, "original_inference_steps set_alpha_to_one timestep_scaling"
    ),
    "ScoreSdeVeScheduler": _named("num_train_timesteps snr sigma_min sigma_max sampling_eps correct_steps"),
}

_UNET = (
    "in_channels flip_sin_to_cos freq_shift down_block_types mid_block_type block_out_channels layers_per_block "
    "downsample_padding mid_block_scale_factor act_fn norm_num_groups norm_eps attention_head_dim class_embed_type "
    "num_class_embeds resnet_time_scale_shift"
)
_WHOLE = f"{_UNET} sample_size out_channels center_input_sample up_block_types dropout time_embedding_type "
_WHOLE += "time_embedding_dim"
_READING = (
    f"{_UNET} only_cross_attention cross_attention_dim transformer_layers_per_block encoder_hid_dim "
    "encoder_hid_dim_type num_attention_heads use_linear_projection addition_embed_type addition_time_embed_dim "
    "upcast_attention projection_class_embeddings_input_dim addition_embed_type_num_heads"
)
_DIT = (
    "num_attention_heads attention_head_dim in_channels out_channels num_layers dropout norm_num_groups "
    "attention_bias sample_size patch_size activation_fn num_embeds_ada_norm upcast_attention norm_type "
    "norm_elementwise_affine norm_eps"
)
_AUTOENCODER = (
    "in_channels out_channels down_block_types up_block_types block_out_channels layers_per_block act_fn "
    "latent_channels norm_num_groups sample_size scaling_factor force_upcast mid_block_add_attention"
)

NETWORKS = {
    "UNet2DModel": _named(
        _WHOLE, "downsample_type upsample_type attn_norm_num_groups add_attention num_train_timesteps"
    ),
    "UNet2DConditionModel": _named(
        _WHOLE,
        _READING,
        "reverse_transformer_layers_per_block dual_cross_attention resnet_skip_time_act resnet_out_scale_factor",
        "time_embedding_act_fn timestep_post_act time_cond_proj_dim conv_in_kernel conv_out_kernel attention_type",
        "class_embeddings_concat mid_block_only_cross_attention cross_attention_norm",
    ),
    "ControlNetModel": _named(
        _READING,
        "conditioning_channels controlnet_conditioning_channel_order conditioning_embedding_out_channels",
        "global_pool_conditions",
    ),
    "DiTTransformer2DModel": _named(_DIT),
    "Transformer2DModel": _named(
        _DIT,
        "cross_attention_dim num_vector_embeds use_linear_projection only_cross_attention double_self_attention",
        "attention_type caption_channels interpolation_scale use_additional_conditions",
    ),
    "AutoencoderKL": _named(_AUTOENCODER, "shift_factor latents_mean latents_std use_quant_conv use_post_quant_conv"),
    "VQModel": _named(_AUTOENCODER, "num_vq_embeddings vq_embed_dim norm_type lookup_from_codebook"),
    "PriorTransformer": _named(
        "num_attention_heads attention_head_dim num_layers embedding_dim num_embeddings additional_embeddings",
        "dropout time_embed_act_fn norm_in_type embedding_proj_norm_type encoder_hid_proj_type added_emb_type",
        "time_embed_dim embedding_proj_dim clip_embed_dim",
    ),
    "UnCLIPTextProjModel": _named("clip_extra_context_tokens clip_embeddings_dim time_embed_dim cross_attention_dim"),
    "StableUnCLIPImageNormalizer": _named("embedding_dim"),
    "AutoencoderTiny": _named(
        "in_channels out_channels encoder_block_out_channels decoder_block_out_channels act_fn upsample_fn",
        "latent_channels upsampling_scaling_factor num_encoder_blocks num_decoder_blocks latent_magnitude",
        "latent_shift force_upcast scaling_factor shift_factor",
    ),
}

_CLIP = (
    "hidden_size intermediate_size projection_dim num_hidden_layers num_attention_heads hidden_act layer_norm_eps "
    "attention_dropout initializer_range initializer_factor"
)
_CLIP_TEXT = f"{_CLIP} vocab_size max_position_embeddings eos_token_id"
_CLIP_VISION = f"{_CLIP} num_channels image_size patch_size"

# Of transformers, whose configs keep any name. The last of T5 are other names of what it hears.
ENCODERS = {
    "CLIPTextModel": _named(_CLIP_TEXT),
    "CLIPTextModelWithProjection": _named(_CLIP_TEXT),
    "CLIPModel's text_config": _named(_CLIP_TEXT),
    "CLIPVisionModel": _named(_CLIP_VISION),
    "CLIPVisionModelWithProjection": _named(_CLIP_VISION),
    "CLIPModel's vision_config": _named(_CLIP_VISION),
    "CLIPModel": _named("text_config vision_config projection_dim logit_scale_init_value initializer_factor"),
    "T5EncoderModel": _named(
        "vocab_size d_model d_kv d_ff num_layers num_heads relative_attention_num_buckets",
        "relative_attention_max_distance layer_norm_epsilon feed_forward_proj",
        "hidden_size num_attention_heads num_hidden_layers head_dim",
    ),
}
# How pictures are prepared, and what wrote the file.
PREPARED = {
    "CLIPImageProcessor": _named(
        "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize",
        "image_mean image_std do_convert_rgb",
    ),
}
_SAVED = _named("feature_extractor_type image_processor_type processor_class data_format")
# What no encoder hears: how text is generated, what is trained or returned, and what wrote the file.
_WRITTEN = _named(
    "add_cross_attention architectures bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward",
    "classifier_dropout cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dropout",
    "dropout_rate dtype early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty",
    "finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_factor",
    "is_decoder is_encoder_decoder label2id length_penalty max_length min_length model_type n_positions",
    "name_or_path no_repeat_ngram_size num_beam_groups num_beams num_decoder_layers num_return_sequences",
    "output_attentions output_hidden_states output_past output_scores pad_token_id prefix problem_type",
    "remove_invalid_values repetition_penalty return_dict return_dict_in_generate",
    "scale_decoder_outputs sep_token_id suppress_tokens",
    "task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k",
    "top_p torch_dtype torchscript transformers_version typical_p use_bfloat16 use_cache",
)

# Of no class of today: what was given up, and what beside the classes above writes into such configs.
_SCHEDULERS_PAST = _named(
    "tensor_format timestep_values predict_epsilon original_inference_steps timestep_scaling sigma_schedule",
    "predictor_order corrector_order tau_func",
)
_AVERAGES = _named("decay min_decay optimization_step update_after_step use_ema_warmup inv_gamma power")

_FAMILIES = (
    (SCHEDULERS, _SCHEDULERS_PAST.union(*SCHEDULERS.values())),
    (NETWORKS, _AVERAGES.union(*NETWORKS.values())),
    (PREPARED, _SAVED.union(*PREPARED.values())),
    (ENCODERS, _WRITTEN.union(*ENCODERS.values())),
)


def drops(kind: str, name: str) -> bool:
    """Whether the class `kind` of diffusers or transformers drops the value `name`; False for unknown classes."""
    return any(kind in family and name in names and name not in family[kind] for family, names in _FAMILIES)
