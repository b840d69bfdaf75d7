"""mitmproxy's part: the credential, and bodies that pass as they come."""


def requestheaders(flow):
    flow.request.headers["authorization"] = "Bearer @TOKEN@"
    flow.request.stream = True


def responseheaders(flow):
    flow.response.stream = True
