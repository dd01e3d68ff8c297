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
    "pan2021explaining": """@inproceedings{pan2021explaining,
  title     = {Explaining Deep Neural Network Models with Adversarial Gradient Integration},
  author    = {Pan, Deng and Li, Xin and Zhu, Dongxiao},
  booktitle = {Proceedings of the Thirtieth International Joint Conference on Artificial Intelligence},
  year      = {2021}
}""",
    "zhu2024mfaba": """@inproceedings{zhu2024mfaba,
  title     = {{MFABA}: A More Faithful and Accelerated Boundary-based Attribution Method for Deep Neural Networks},
  author    = {Zhu, Zhiyu and Chen, Huaming and Zhang, Jiayu and Wang, Xinyi and Jin, Zhibo and Xue, Minhui and Zhu, Dongxiao and Choo, Kim-Kwang Raymond},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2024},
  eprint    = {2312.13630},
  archivePrefix = {arXiv}
}""",
    "wang2021boundary": """@misc{wang2021boundary,
  title  = {Boundary Attributions for Normal (Vector) Explanations},
  author = {Wang, Zifan and Fredrikson, Matt and Datta, Anupam},
  year   = {2021},
  eprint = {2103.11257},
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
}


def bibtex(key: str) -> str:
    """The entry under a citation key."""
    if key not in BIBTEX:
        raise UnknownName("citation", key, BIBTEX)
    return BIBTEX[key]
