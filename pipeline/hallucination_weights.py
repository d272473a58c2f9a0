"""x"""

WITH_EVIDENCE = {"bias": 0.0}
WITHOUT_EVIDENCE = {"bias": 0.0}
