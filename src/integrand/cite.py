"""Where each published name comes from, as BibTeX."""

from __future__ import annotations

from .errors import UnknownName

BIBTEX = {
    "sundararajan2017axiomatic": """@inproceedings{sundararajan2017axiomatic,
  title     = {Axiomatic Attribution for Deep Networks},
  author    = {Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi},
  booktitle = {Proceedings of the 34th International Conference on Machine Learning},
  pages     = {3319--3328},
  year      = {2017},
  eprint    = {1703.01365},
  archivePrefix = {arXiv}
}""",
    "erion2021improving": """@article{erion2021improving,
  title   = {Improving performance of deep learning models with axiomatic attribution priors and expected gradients},
  author  = {Erion, Gabriel and Janizek, Joseph D. and Sturmfels, Pascal and Lundberg, Scott M. and Lee, Su-In},
  journal = {Nature Machine Intelligence},
  volume  = {3},
  pages   = {620--631},
  year    = {2021},
  doi     = {10.1038/s42256-021-00343-w}
}""",
    "tran2025weighted": """@misc{tran2025weighted,
  title  = {Enhancing Visual Feature Attribution via Weighted Integrated Gradients},
  author = {Tran Duc Tuan, Kien and Nguyen Trong, Tam and Nguyen Hoang, Son and Than, Khoat and Nguyen Duc, Anh},
  year   = {2025},
  eprint = {2505.03201},
  archivePrefix = {arXiv}
}""",
    "dhamdhere2019important": """@inproceedings{dhamdhere2019important,
  title     = {How Important is a Neuron?},
  author    = {Dhamdhere, Kedar and Sundararajan, Mukund and Yan, Qiqi},
  booktitle = {7th International Conference on Learning Representations},
  year      = {2019},
  eprint    = {1805.12233},
  archivePrefix = {arXiv}
}""",
    "kim2026manifold": """@inproceedings{kim2026manifold,
  title     = {Manifold-Aligned Guided Integrated Gradients for Reliable Feature Attribution},
  author    = {Kim, Soyeon and Lim, Seongwoo and Lee, Kyowoon and Choi, Jaesik},
  booktitle = {International Conference on Machine Learning},
  year      = {2026},
  eprint    = {2605.02167},
  archivePrefix = {arXiv}
}""",
    "jha2020enhanced": """@article{jha2020enhanced,
  title   = {Enhanced Integrated Gradients: improving interpretability of deep learning models using splicing codes as a case study},
  author  = {Jha, Anupama and Aicher, Joseph K. and Gazzara, Matthew R. and Singh, Deependra and Barash, Yoseph},
  journal = {Genome Biology},
  volume  = {21},
  number  = {1},
  pages   = {149},
  year    = {2020},
  doi     = {10.1186/s13059-020-02055-7}
}""",
    "zaher2024manifold": """@inproceedings{zaher2024manifold,
  title     = {Manifold Integrated Gradients: Riemannian Geometry for Feature Attribution},
  author    = {Zaher, Eslam and Trzaskowski, Maciej and Nguyen, Quan and Roosta, Fred},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  eprint    = {2405.09800},
  archivePrefix = {arXiv}
}""",
    "zhuo2024ig2": """@article{zhuo2024ig2,
  title   = {{IG2}: Integrated Gradient on Iterative Gradient Path for Feature Attribution},
  author  = {Zhuo, Yue and Ge, Zhiqiang},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume  = {46},
  number  = {11},
  pages   = {7173--7190},
  year    = {2024},
  doi     = {10.1109/TPAMI.2024.3388092},
  eprint  = {2406.10852},
  archivePrefix = {arXiv}
}""",
    "xu2020attribution": """@inproceedings{xu2020attribution,
  title     = {Attribution in Scale and Space},
  author    = {Xu, Shawn and Venugopalan, Subhashini and Sundararajan, Mukund},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {9680--9689},
  year      = {2020},
  doi       = {10.1109/CVPR42600.2020.00970},
  eprint    = {2004.03383},
  archivePrefix = {arXiv}
}""",
    "kim2026spectral": """@inproceedings{kim2026spectral,
  title     = {Spectral Integrated Gradients for Coarse-to-Fine Feature Attribution},
  author    = {Kim, Soyeon and Lim, Seongwoo and Lee, Kyowoon and Choi, Jaesik},
  booktitle = {Proceedings of the 32nd ACM SIGKDD Conference on Knowledge Discovery and Data Mining (KDD)},
  year      = {2026},
  eprint    = {2605.19607},
  archivePrefix = {arXiv}
}""",
}


def bibtex(key: str) -> str:
    """The entry under a citation key."""
    if key not in BIBTEX:
        raise UnknownName("citation", key, BIBTEX)
    return BIBTEX[key]
