package meshward

# Connections, which have no request: a caller whose service account is `a`.
result := {"allowed": endswith(input.attributes.source.principal, "/sa/a")} if {
	not http
}

result := {
	"allowed": true,
	"headers": {"x-ext-authz-check-result": "allowed", "x-user": "opa", "x-forwarded-client-cert": "By=forged;URI=spiffe://forged/ns/x/sa/x"},
	"response_headers": {"x-checked": "opa"},
	"remove_headers": ["x-secret"],
	"set_query": {"checked": "yes"},
} if {
	http.headers["x-ext-authz"] == "allow"
}

result := {"allowed": true} if {
	contains(http.body, "let me in")
}

result := {"allowed": false, "status": 403, "body": "denied by ext_authz for not found header `x-ext-authz: allow` in the request", "headers": {"x-ext-authz-check-result": "denied"}} if {
	http.headers["x-ext-authz"] != "allow"
	not contains(http.body, "let me in")
}

http := input.attributes.request.http if input.attributes.request.http.method != ""
