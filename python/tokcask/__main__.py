"""python -m tokcask"""

from tokcask._cli import main

raise SystemExit(main())
