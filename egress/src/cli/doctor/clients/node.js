// Says whether Node trusts what it is shown for a host: `trusted`, `untrusted` or `unclear`, and why.
// It makes its tunnel itself, since older versions know of no proxy. The trust is the same in all that Node does.
const host = process.argv[1];
const say = (word) => { console.log(word); process.exit(0); };
const failed = (error) => say(/CERT|ISSUER|SIGNATURE|ALTNAME/.test(error.code)
  ? 'untrusted ' + error.code : 'unclear ' + (error.code || error.message));
const secure = (socket) => require('tls')
  .connect({ socket, host, port: 443, servername: host }, () => say('trusted')).on('error', failed);
const variable = process.env.https_proxy || process.env.HTTPS_PROXY;
if (!variable) secure();
else {
  const proxy = new URL(variable);
  const headers = { host: host + ':443' };
  if (proxy.username) headers['proxy-authorization'] = 'Basic ' + Buffer.from(
    decodeURIComponent(proxy.username) + ':' + decodeURIComponent(proxy.password)).toString('base64');
  require('http')
    .request({ host: proxy.hostname.replace(/[\[\]]/g, ''), port: proxy.port, method: 'CONNECT', path: host + ':443', headers })
    .on('connect', (answer, socket) => answer.statusCode === 200
      ? secure(socket) : say('unclear CONNECT ' + answer.statusCode))
    .on('error', failed).end();
}
