"""A cluster of one machine: runs the rendered manifests of deploy/k8s as processes.

What a kubelet, the controllers of sets and Deployments and kube-proxy do to our pods, in the order in which they do
it: start, probes, ready, endpoints, preStop, SIGTERM, grace, SIGKILL. Every pod has a loopback address (127.x.y.z) of
its own, so that ports are those of the manifests. Nothing is scheduled, no volume is moved, no policy is enforced.
"""
