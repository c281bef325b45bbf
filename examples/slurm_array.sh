#!/bin/sh
# The pipeline in steps on a Slurm cluster: sh examples/slurm_array.sh exposures.txt 16
#
# One job plans, an array of jobs measures a part of the images each, one job merges and solves, and a second array
# subtracts into copies. A part that failed is run again alone: sbatch --array=5 ..., and goes on where it was.
# The jobs take $list, $parts and $work from the environment, so that no name needs quoting.
set -eu
list=${1:?a list of exposures, one a line}
parts=${2:-16}
work=${WORK:-work}
test -s "$list" || { echo "$list: no exposures in it" >&2; exit 1; }
mkdir -p "$work"
export list parts work
submit() { sbatch --parsable --export=ALL "$@"; }

plan=$(submit --job-name=plan --wrap 'skymatch plan --store "$work/field.db" "@$list"')
measure=$(submit --job-name=measure --dependency=afterok:"$plan" --array=1-"$parts" --cpus-per-task=2 --wrap \
    'skymatch measure "$work/field.db" -o "$work/part$SLURM_ARRAY_TASK_ID.db" \
        --shard "$SLURM_ARRAY_TASK_ID/$parts" --jobs 2')
# the parts of this run by name: an earlier one may have left more
solve=$(submit --job-name=solve --dependency=afterok:"$measure" --wrap \
    'set -- && for k in $(seq "$parts"); do set -- "$@" "$work/part$k.db"; done && \
        skymatch merge "$work/field.db" "$@" && \
        skymatch solve "$work/field.db" -o "$work/solution.fits" --overwrite')
submit --job-name=apply --dependency=afterok:"$solve" --array=1-"$parts" --wrap \
    'skymatch apply "$work/solution.fits" --subtract --output-dir matched --overwrite \
        --shard "$SLURM_ARRAY_TASK_ID/$parts"'
