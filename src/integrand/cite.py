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
    "yang2023idgi": """@inproceedings{yang2023idgi,
  title     = {{IDGI}: A Framework to Eliminate Explanation Noise from Integrated Gradients},
  author    = {Yang, Ruo and Wang, Binghui and Bilgic, Mustafa},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2023},
  eprint    = {2303.14242},
  archivePrefix = {arXiv}
}""",
    "walker2024integrated": """@inproceedings{walker2024integrated,
  title     = {Integrated Decision Gradients: Compute Your Attributions Where the Model Makes Its Decision},
  author    = {Walker, C. and Jha, S. and Chen, K. and Ewetz, R.},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume    = {38},
  number    = {6},
  pages     = {5289--5297},
  year      = {2024},
  eprint    = {2305.20052},
  archivePrefix = {arXiv}
}""",
    "kamalov2025pathweighted": """@misc{kamalov2025pathweighted,
  title  = {Path-Weighted Integrated Gradients for Interpretable Dementia Classification},
  author = {Kamalov, F. and Al Falasi, M. and Thabtah, F.},
  year   = {2025},
  eprint = {2509.17491},
  archivePrefix = {arXiv}
}""",
    "kamalov2026pathsampled": """@misc{kamalov2026pathsampled,
  title  = {Path-Sampled Integrated Gradients},
  author = {Kamalov and Thabtah and Sivaraj and Abdelhamid},
  year   = {2026},
  eprint = {2604.14338},
  archivePrefix = {arXiv}
}""",
    "miglani2020investigating": """@misc{miglani2020investigating,
  title  = {Investigating Saturation Effects in Integrated Gradients},
  author = {Miglani, Vivek and Kokhlikyan, Narine and Alsallakh, Bilal and Martin, Miguel and Reblitz-Richardson, Orion},
  year   = {2020},
  eprint = {2010.12697},
  archivePrefix = {arXiv}
}""",
}


def bibtex(key: str) -> str:
    """The entry under a citation key."""
    if key not in BIBTEX:
        raise UnknownName("citation", key, BIBTEX)
    return BIBTEX[key]
