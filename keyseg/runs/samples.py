"""samples.parquet: one row per evaluated example and protocol, and what its columns say."""

SAMPLE_COLUMNS = {
    "id": "of the example: its target's, and the number of the expression",
    "image_id": "of the image, the cluster of the statistics",
    "image": "path to the image",
    "query": "the expression",
    "keyword": "the true keyword; null: not known",
    "text": "what names the target in the answer; null: the keyword does",
    "protocol": "`teacher_forced` or `generated`",
    "intersection": "pixels in prediction and target; void pixels count nowhere",
    "union": "pixels in either",
    "iou": "intersection over union; 1 where both masks are empty",
    "predicted_iou": "SAM's own judgement of the mask",
    "keyword_rank": "words that KEY ranks above the keyword's first token; -1: no keyword is known",
    "keyword_token": "the keyword's first token, by which right and wrong are decided",
    "predicted_keyword": "KEY's first word",
    "top_words": "KEY's first five words with their probabilities, as JSON",
    "answer": "the answer, given or written by the model",
    "answer_noun": "head noun of what the model wrote after the tokens; empty: it has none; null: "
    "the answer was given, or is not to name the target",
    "target_noun": "the target's, by the same rules; null: not known",
    "has_seg": "whether the answer holds SEG; without it the mask is empty",
    "has_key": "whether it holds every KEY",
    "key_asked": "whether answers hold KEY in this cell; without, keyword and KEY are not measured",
    "height": "of the image, in pixels",
    "width": "of the image, in pixels",
    "target_rle": "the target in COCO's run lengths; empty: not stored",
    "mask_rle": "the predicted mask",
    "ignore_rle": "void pixels; empty: there are none",
}
"""Name and meaning. Beside them each slice has a column `slice_NAME`."""

SEVERAL_COLUMNS = {
    "n_targets": "targets of the query",
    "n_masks": "masks of the answer: its SEGs",
    "matches": "as JSON, for each mask the number of the target that it is matched with; -1: none",
    "matched_iou": "sum of the IoUs of matched masks and targets",
    "matched_intersection": "pixels in both, summed over the pairs",
    "matched_union": "pixels in either, summed; of what has no partner, its own",
    "masks_rle": "as JSON, the run lengths of each mask",
    "targets_rle": "as JSON, those of each target",
    "keywords_known": "targets whose keyword is known and asked for",
    "keywords_right": "those of them whose mask's KEY names it",
}
"""Further columns where queries may have several targets (`data.targets: each`). The columns above
speak of the union of masks and of targets there; null for a query that has one mask."""

REJECTED = {"rejected": "whether the model says that there is no target; the mask is empty then"}
"""A further column where it has a way of its own to say so: by [REJ] in the answer, or by the
object score of every mask (`model.tokens.no_target: reject`, `score`)."""

SCORED = {"object_score": "highest object score of its masks, a logit; null: it asks for none"}
"""A further column where the object score decides (`model.tokens.no_target: score`)."""

REQUIRED = (
    "id",
    "image_id",
    "image",
    "query",
    "keyword",
    "protocol",
    "intersection",
    "union",
    "iou",
    "keyword_rank",
    "answer",
    "has_seg",
    "has_key",
    "height",
    "width",
)
"""What a report cannot do without; the others may be absent in old runs."""
