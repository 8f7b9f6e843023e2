// The page of a library (Swagger UI), told where this server's description is.
const root = new URL(document.documentElement.dataset.root, location.href);

const ownServer = (description) => ({ ...description, servers: [{ url: root.href.replace(/\/$/, "") }] });

fetch(new URL("openapi.json", root))
  .then((answer) => answer.json())
  .then((description) => {
    window.SwaggerUIBundle({
      domNode: document.getElementById("docs"),
      spec: ownServer(description),
      deepLinking: true,
      // Nothing is sent to the service that checks descriptions.
      validatorUrl: null,
    });
  });
