#!/bin/sh
# The pipeline in steps on a Slurm cluster: sh examples/slurm_array.sh exposures.txt 16
#
# One job plans, an array of jobs measures a part of the images each, one job merges and solves, and a second array
# subtracts into copies. A part that failed is run again alone: sbatch --array=5 ..., and goes on where it was.
set -eu
list=${1:?a list of exposures, one a line}
parts=${2:-16}
work=${WORK:-work}
mkdir -p "$work"
submit() { sbatch --parsable "$@"; }

plan=$(submit --job-name=plan --wrap "skymatch plan -o $work/plan.fits --overwrite @$list")
measure=$(submit --job-name=measure --dependency=afterok:"$plan" --array=1-"$parts" --cpus-per-task=2 --wrap \
    "skymatch measure $work/plan.fits -o $work/part\$SLURM_ARRAY_TASK_ID.fits --overwrite \
        --shard \$SLURM_ARRAY_TASK_ID/$parts --jobs 2")
solve=$(submit --job-name=solve --dependency=afterok:"$measure" --wrap \
    "skymatch merge $work/part*.fits -o $work/measured.fits --overwrite && \
        skymatch solve $work/measured.fits -o $work/solution.fits --overwrite")
submit --job-name=apply --dependency=afterok:"$solve" --array=1-"$parts" --wrap \
    "skymatch apply $work/solution.fits --subtract --output-dir matched --overwrite \
        --shard \$SLURM_ARRAY_TASK_ID/$parts"
