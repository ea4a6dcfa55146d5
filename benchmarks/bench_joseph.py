"""Joseph forward and back projection of one image, against the best of ASTRA's linear kernel and libparallelproj."""

from _projection import bench_projection

CLAIM = 8


def main(argv=None):
    return bench_projection(__file__, __doc__, "joseph", CLAIM, argv)


if __name__ == "__main__":
    main()
