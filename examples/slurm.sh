#!/bin/sh
#SBATCH --job-name=skymatch
#SBATCH --cpus-per-task=8
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#
# sbatch examples/slurm.sh exposures.txt      (one image a line, an optional mask in the second column)
#
# Without warnings the job ends with 0 and matched/ holds the copies; else it ends with skymatch's exit code, which
# dependent jobs wait for: sbatch --dependency=afterok:JOBID coadd.sh
set -eu
list=${1:?a list of exposures}
mkdir -p matched
skymatch match --subtract --output-dir matched --overwrite --strict --jobs "${SLURM_CPUS_PER_TASK:-0}" \
    --log-file matched/skymatch.log -o matched/sky.ecsv "@$list"
