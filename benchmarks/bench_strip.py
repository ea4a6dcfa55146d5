"""Strip forward and back projection (exact areas) of one image, against ASTRA's strip kernel."""

from _projection import bench_projection

CLAIM = 6


def main(argv=None):
    return bench_projection(__file__, __doc__, "strip", CLAIM, argv)


if __name__ == "__main__":
    main()
