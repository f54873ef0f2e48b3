import sys
sys.path.insert(0, "/work/main/tests/envs")
import numpy as np
from test_robosuite_experts import make
def test_it():
    import os
    task, seed, watch = os.environ["T"], int(os.environ["S"]), os.environ.get("W", "").split(",")
    sim, ex = make(task)
    sim.reset(seed); ex.reset(seed)
    for t in range(int(os.environ.get("N", 300))):
        a = ex.act({})
        if t % int(os.environ.get("E", 8)) == 0:
            print(t, *[sim.data.site_xpos[h.site].round(3) for h in sim.hands], "z", *[sim.data.site_xmat[h.site].reshape(3,3)[:,2].round(1) for h in sim.hands], "a", a.round(1), *[n + str(sim.data.geom(n).xpos.round(3)) for n in watch if n], flush=True)
        p = sim.step(a)
        if p.success or p.failed: break
    print(t, p.success)
