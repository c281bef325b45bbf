"""Match images from Python and list the overlaps that agree least: python largest_residuals.py *.fits"""

import sys

import numpy as np

import skymatch_cli


def main(names: list[str]) -> None:
    result = skymatch_cli.match(names, dry_run=True)
    files = [str(f) for f in result.images["file"]]
    overlaps = result.overlaps[np.array(result.overlaps["status"]) == "ok"]
    pull = np.abs(np.asarray(overlaps["residual"]) / np.asarray(overlaps["delta_err"]))
    for k in np.argsort(-pull)[:5]:
        a, b = files[overlaps["a"][k]], files[overlaps["b"][k]]
        print(f"{pull[k]:6.2f} sigma  {a}  {b}")


if __name__ == "__main__":
    main(sys.argv[1:])
