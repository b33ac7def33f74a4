"""Image classification for the cell-biology lab, and whether its numbers can be believed."""
# made by nbs/make_faces.py from what the rooms export; change a notebook and run it again
from importlib import import_module
import warnings

warnings.filterwarnings('ignore', r'`torch\.jit\.\w+` is (deprecated|not supported)')
__version__ = "0.1.0"
_rooms = {
    'all': [],
    'assays.arms': ['ARM', 'COMPARED', 'MARKS', 'NO_SPREAD', 'PRINTED_LIMIT', 'SHADES', 'TESTS', 'compare_arms',
        'p_text', 'plot_distributions', 'plot_superplot', 'simulate_comparisons'],
    'assays.fcs': ['find_channel', 'guess_tubes', 'read_fcs', 'read_tubes'],
    'assays.flow': ['QUADRANTS', 'compare_quadrants', 'plot_controls', 'plot_quadrants', 'quadrant_gates', 'quadrants'],
    'assays.gates': ['above_peak', 'find_valley', 'gate_cells', 'gate_singlets', 'prepare_events'],
    'assays.spill': ['compensate', 'scale', 'single_cells', 'spillover'],
    'cli': [],
    'evaluate.figures': ['FIXED_COLORS', 'PALETTE', 'best_epoch', 'class_colors', 'gallery', 'plot_confusion',
        'plot_history', 'turning_point', 'worst_tiles'],
    'evaluate.intervals': ['SHARES', 'balanced_share', 'wilson'],
    'evaluate.preds': ['COMBINE', 'CONTROLS', 'as_preds', 'check_preds', 'class_names', 'positive_class', 'to_level'],
    'evaluate.scores': ['Metrics', 'collapse', 'confusion', 'metrics', 'metrics_from', 'report_table'],
    'evaluate.thresholds': ['Threshold', 'apply_temperature', 'apply_threshold', 'calibrate', 'calibration_table',
        'choose_threshold', 'coverage_table', 'plot_calibration', 'plot_coverage'],
    'files': ['bar', 'check_free', 'check_ordinary', 'guard_text', 'new_folder', 'plain_text', 'read_csv', 'read_json',
        'swap_in', 'sync', 'write_csv', 'write_json', 'write_whole'],
    'learn.learner': ['fast_half', 'find_rate', 'make_learner', 'precision_on'],
    'learn.loaders': ['flip_turn', 'make_dls', 'relight'],
    'learn.models': ['Model', 'load_model', 'save_model'],
    'learn.nets': ['ahead', 'as_input', 'best_device', 'check_arch', 'make_net', 'shrink'],
    'learn.prediction': ['grey_range', 'predict', 'tile_greys'],
    'learn.recipes': ['Recipe'],
    'learn.runs': ['Run', 'environment', 'open_run', 'open_runs'],
    'learn.sittings': ['NoNumber'],
    'learn.training': ['expected_seconds', 'repeat', 'train'],
    'pages': ['STYLE', 'write_page'],
    'people.compare': ['Comparison', 'agreement_table', 'change_table', 'compare_deciders', 'consistency_table',
        'decider_table', 'fleiss_kappa', 'group_pair_table', 'group_table', 'kappa', 'missed_table', 'mixed_table',
        'pair_table', 'poisson_binomial', 'signal_detection', 'tile_table'],
    'people.figures': ['plot_consistency', 'plot_deciders', 'plot_tiles'],
    'people.judging': ['CANNOT_TELL', 'JUDGEMENT_COLUMNS', 'from_predictions', 'judgements', 'read_judgements',
        'simulate_observer'],
    'people.plans': ['TrialPlan', 'binomial_power', 'detectable', 'plan_trial', 'plot_power'],
    'people.trials': ['TrainingGallery', 'Trial', 'draw_tiles', 'tile_png'],
    'photos.amounts': ['looks_like_an_amount', 'read_amount'],
    'photos.apart': ['Ended'],
    'photos.classes': ['class_key', 'clean_name', 'control_words', 'is_control'],
    'photos.conventions': ['maker_of'],
    'photos.fields': ['explain_names', 'list_images', 'read_fields'],
    'photos.joins': ['read_table'],
    'photos.microscopes': [],
    'photos.names': ['line_names', 'parse_name', 'parts_of_name', 'treatment_names'],
    'photos.pictures': ['scale_bar', 'show_fields'],
    'photos.pixels': ['BadFile', 'MAX_SCANS', 'Photo', 'StopWork', 'channels', 'file_checksum', 'image_exts',
        'max_bytes', 'source_checksum', 'source_state', 'vendor_exts', 'zarr_ext'],
    'photos.quality': ['cell_area', 'field_quality', 'leave_out', 'quality_outliers', 'show_outliers'],
    'photos.reading': ['read_header', 'read_image', 'read_photo', 'to_uint8'],
    'photos.tiffs': [],
    'photos.trees': ['folder_levels', 'tree_text'],
    'photos.windows': ['BEYOND'],
    'photos.zarrs': ['FLOOR', 'unpackers'],
    'png': [],
    'report': ['GLOSSARY', 'LIGHTS', 'METRIC_WORDS', 'Verdict', 'answer', 'verdict', 'write_report'],
    'road': ['MANY', 'Road', 'print_nothing', 'take_road', 'train_safely'],
    'simulate.microscope': ['cell_lines', 'designs', 'drug_strength', 'nuisance_none', 'nuisance_spread',
        'phase_contrast', 'read_truth', 'simulate_experiment', 'simulate_field', 'um_per_px_evos'],
    'simulate.planted': ['plant_cells'],
    'simulate.samples': ['DESIGNS', 'download', 'sample_data', 'u2os_registry', 'whats_wrong'],
    'simulate.tubes': ['DYES', 'MARKERS', 'POPULATIONS', 'SPILL', 'death_shares', 'simulate_tube', 'simulate_tubes',
        'write_fcs', 'write_tubes'],
    'studies.curves': ['PowerLaw', 'fit_power_law', 'learning_curve', 'plot_learning_curve'],
    'studies.published': ['AuthorRecords', 'Check', 'SPREADS', 'author_leak', 'author_records', 'beside_claim',
        'binomial_scatter', 'check_claims', 'claims', 'errors_make', 'grim', 'grimmer', 'plot_beside', 'printing_limit',
        'samuelson', 'whole_parts'],
    'tiles.cut': ['add_photographs', 'cut_tiles'],
    'tiles.layout': ['fit_grid', 'tile_layout'],
    'tiles.places': ['find_near_duplicates', 'group_by_place', 'seen_together'],
    'tiles.remedies': ['SeenThrough', 'as_recorded', 'background_only', 'gray_table', 'normalize_fields',
        'remedies_of'],
    'tiles.splits': ['check_leaks', 'hold_out', 'k_fold', 'leave_one_out', 'split_as_paper', 'split_by',
        'split_summary'],
    'tiles.store': ['Tiles', 'open_tiles', 'write_store'],
    'trust.audits': ['Audit', 'audit'],
    'trust.checks': ['Trust', 'cell_share', 'deletion_insertion', 'plot_deletion', 'plot_trust', 'pointing_game',
        'randomization_check', 'segmentation_dice', 'shuffle_labels', 'stability'],
    'trust.conformal': ['METHODS', 'abstention_table', 'conformal_sets', 'plot_abstention', 'well_calls'],
    'trust.confounders': ['Findings', 'confounding', 'cramers_v', 'v_interval'],
    'trust.controls': ['negative_controls', 'train_cheap'],
    'trust.maps': ['Cams', 'cam', 'map_layers', 'save_cams', 'show_cams'],
    'trust.masks': ['dice', 'segment_cells', 'tile_masks'],
    'trust.shortcuts': ['compare_remedies', 'plot_shortcuts', 'shortcut_baseline'],
    'units': ['LEVELS', 'WELL_COLUMNS', 'group_keys', 'natural_key', 'parse_rule', 'unit_ids', 'which_tiles'],
}
_room_of = {name: room for room, names in _rooms.items() for name in names}
_parts = {room.split('.')[0] for room in _rooms}
__all__ = sorted(_room_of)


def __getattr__(name):
    "A room is imported when one of its names is asked for."
    if name in _room_of: return getattr(import_module(f'{__name__}.{_room_of[name]}'), name)
    if name in _parts: return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__(): return sorted({*__all__, *_parts, *(o for o in globals() if o.startswith('__'))})
